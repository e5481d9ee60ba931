use super::*;

fn candidate(token: u32, confidence: f32) -> Candidate {
    Candidate {
        token,
        confidence,
        margin: confidence,
        entropy: 0.0,
    }
}

#[test]
fn a_token_that_stays_gains_and_another_one_begins_anew() {
    let mut running = Running::default();
    let steps = [
        (7, 0.5, 0.25),
        (7, 0.5, 0.375),
        (7, 1.0, 0.6875),
        (3, 1.0, 0.5),
        (7, 1.0, 0.5),
    ];
    for (token, confidence, mean) in steps {
        let counted = running.count(4, &candidate(token, confidence));
        assert_eq!(counted.to_bits(), f32::to_bits(mean));
    }
    // Other places know nothing of it, before and after it.
    for at in [0, 9] {
        let counted = running.count(at, &candidate(7, 0.5));
        assert_eq!(counted.to_bits(), f32::to_bits(0.25));
    }
}

#[test]
fn a_steady_token_comes_before_a_new_one_that_is_surer() {
    let mut running = Running::default();
    running.count(0, &candidate(1, 0.75));
    running.count(1, &candidate(1, 0.75));
    let [steady, new] = [(0, 1, 0.75), (1, 2, 0.875)]
        .map(|(at, token, confidence)| running.count(at, &candidate(token, confidence)));
    assert_eq!((steady, new), (0.5625, 0.4375));
}
