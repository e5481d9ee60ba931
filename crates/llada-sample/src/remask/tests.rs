use super::*;

#[test]
fn the_highest_scores_win_and_the_first_among_equals() {
    #[track_caller]
    fn check(scores: &[f32], quota: usize, expected: &[usize]) {
        assert_eq!(highest(scores, quota), expected);
    }
    check(&[0.1, 0.9, 0.5, 0.7], 2, &[1, 3]);
    check(&[0.5, 0.5, 0.5], 2, &[0, 1]);
    check(&[0.2, 0.5, 0.9, 0.5], 2, &[1, 2]);
    check(&[0.0, -0.0, 0.0], 1, &[0]);
    check(&[-3.0, -1.0, f32::NEG_INFINITY], 2, &[0, 1]);
    check(&[0.3, 0.1], 0, &[]);
    check(&[0.3, 0.1], 5, &[0, 1]);
    check(&[], 3, &[]);
}

#[test]
fn every_strategy_prefers_the_surer_candidate() {
    let sure = Candidate {
        token: 1,
        confidence: 0.9,
        margin: 0.8,
        entropy: 0.2,
    };
    let unsure = Candidate {
        token: 2,
        confidence: 0.4,
        margin: 0.1,
        entropy: 1.5,
    };
    for remasking in [
        Remasking::LowConfidence,
        Remasking::Margin,
        Remasking::Entropy,
    ] {
        assert!(
            score(remasking, &sure) > score(remasking, &unsure),
            "{remasking}"
        );
    }
}

#[test]
fn a_threshold_keeps_what_reaches_it_and_the_best() {
    assert_eq!(above_threshold(&[0.9, 0.8, 0.5, 0.8], 0.8), 2);
    assert_eq!(above_threshold(&[0.3, 0.2], 0.8), 1);
    assert_eq!(above_threshold(&[0.3, 0.2], 0.0), 2);
}

#[test]
fn a_factor_asks_more_of_every_further_token() {
    // Bounds of factor 1 from the second rank on: 2/3, 3/4, 4/5.
    assert_eq!(by_factor(&[0.1, 0.7, 0.7, 0.9], 1.0), 2);
    assert_eq!(by_factor(&[0.9, 0.1, 0.1, 0.1], 1.0), 1);
    assert_eq!(by_factor(&[0.1], 1.0), 1);
    assert_eq!(by_factor(&[0.9, 0.9, 0.9, 0.9], 1.0), 4);
    // The last one stays where it alone fails, as in the reference.
    assert_eq!(by_factor(&[0.9, 0.9, 0.9, 0.1], 1.0), 4);
}
