use super::*;

const MASK: u32 = 9;

fn key(seed: u64, sequence: u32, step: u32) -> StepKey {
    StepKey {
        seed,
        sequence,
        step,
    }
}

#[test]
fn the_probability_is_the_share_of_the_way() {
    #[track_caller]
    fn check(t: f64, s: f64, expected: f64) {
        assert_eq!(
            reveal_probability(t, s).unwrap().to_bits(),
            expected.to_bits()
        );
    }
    check(1.0, 0.0, 1.0);
    check(1.0, 0.75, 0.25);
    check(0.5, 0.25, 0.5);
    check(0.5, 0.5, 0.0);
    check(0.1, 0.0, 1.0);
}

#[test]
fn levels_out_of_order_are_errors() {
    #[track_caller]
    fn check(t: f64, s: f64, message: &str) {
        assert_eq!(reveal_probability(t, s).unwrap_err().to_string(), message);
    }
    check(0.0, 0.0, "t must be in (0, 1], got 0");
    check(1.5, 0.0, "t must be in (0, 1], got 1.5");
    check(f64::NAN, 0.0, "t must be in (0, 1], got NaN");
    check(0.5, 0.75, "s must be in [0, t], got 0.75");
    check(0.5, -0.25, "s must be in [0, t], got -0.25");
    check(0.5, f64::NAN, "s must be in [0, t], got NaN");
}

#[test]
fn only_masks_are_revealed_and_the_last_step_reveals_all() {
    let batch = TokenBatch::new(&[vec![1, MASK, MASK], vec![MASK, 2]]).unwrap();
    let keys = [key(5, 0, 0), key(6, 0, 0)];
    let all = reverse_transition(&batch, MASK, &[0.5, 0.1], &[0.0, 0.0], &keys).unwrap();
    assert_eq!(all, [1, 2, 3]);
    let none = reverse_transition(&batch, MASK, &[0.5, 0.1], &[0.5, 0.1], &keys).unwrap();
    assert!(none.is_empty());
}

#[test]
fn the_expected_share_is_revealed() {
    let n = 100_000;
    let batch = TokenBatch::new(&[vec![MASK; n]]).unwrap();
    for (t, s) in [(1.0, 0.9), (0.8, 0.2), (0.3, 0.29)] {
        let revealed = reverse_transition(&batch, MASK, &[t], &[s], &[key(1, 0, 0)]).unwrap();
        let p = (t - s) / t;
        let share = revealed.len() as f64 / n as f64;
        // Five standard deviations of a binomial share.
        let band = 5.0 * (p * (1.0 - p) / n as f64).sqrt();
        assert!(
            (share - p).abs() <= band,
            "{t} to {s}: {share}, expected {p} within {band}"
        );
    }
}

#[test]
fn steps_sequences_and_seeds_draw_independently() {
    let n = 10_000;
    let batch = TokenBatch::new(&[vec![MASK; n]]).unwrap();
    let revealed = |key| reverse_transition(&batch, MASK, &[1.0], &[0.5], &[key]).unwrap();
    let base = revealed(key(1, 0, 0));
    for other in [key(2, 0, 0), key(1, 1, 0), key(1, 0, 1)] {
        let other = revealed(other);
        let both = base
            .iter()
            .filter(|at| other.binary_search(at).is_ok())
            .count();
        // A quarter of the tokens in both, within five standard deviations.
        assert!((both as f64 - n as f64 / 4.0).abs() < 5.0 * (n as f64 * 3.0 / 16.0).sqrt());
    }
}

#[test]
fn batch_mates_have_no_influence() {
    let (a, b) = (vec![MASK; 40], vec![MASK; 25]);
    let (key_a, key_b) = (key(1, 0, 3), key(2, 0, 7));
    let run = |sequences: &[Vec<u32>], t: &[f64], s: &[f64], keys: &[StepKey]| {
        let batch = TokenBatch::new(sequences).unwrap();
        reverse_transition(&batch, MASK, t, s, keys).unwrap()
    };
    let alone = run(std::slice::from_ref(&a), &[0.9], &[0.5], &[key_a]);
    let together = run(&[b, a], &[0.4, 0.9], &[0.1, 0.5], &[key_b, key_a]);
    let second: Vec<usize> = together
        .iter()
        .filter(|&&at| at >= 25)
        .map(|at| at - 25)
        .collect();
    assert_eq!(second, alone);
}

#[test]
fn arguments_of_other_lengths_are_errors() {
    let batch = TokenBatch::new(&[vec![MASK]]).unwrap();
    let error = reverse_transition(&batch, MASK, &[1.0], &[0.5], &[]).unwrap_err();
    assert_eq!(error.to_string(), "step keys: expected 1, got 0");
}
