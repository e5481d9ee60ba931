use super::*;

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

/// Which of `n` masks a step from `t` to `s` reveals.
fn revealed(key: StepKey, n: usize, t: f64, s: f64) -> Vec<usize> {
    let p = reveal_probability(t, s).unwrap();
    let is_revealed = |&at: &usize| f64::from(key.remask_uniform(at)) < p;
    (0..n).filter(is_revealed).collect()
}

#[test]
fn the_last_step_reveals_all_and_none_reveals_nothing() {
    assert_eq!(revealed(key(5, 0, 0), 100, 0.1, 0.0).len(), 100);
    assert!(revealed(key(5, 0, 0), 100, 0.5, 0.5).is_empty());
}

#[test]
fn the_expected_share_is_revealed() {
    let n = 100_000;
    for (t, s) in [(1.0, 0.9), (0.8, 0.2), (0.3, 0.29)] {
        let p = (t - s) / t;
        let share = revealed(key(1, 0, 0), n, t, s).len() as f64 / n as f64;
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
    let base = revealed(key(1, 0, 0), n, 1.0, 0.5);
    for other in [key(2, 0, 0), key(1, 1, 0), key(1, 0, 1)] {
        let other = revealed(other, n, 1.0, 0.5);
        let both = base
            .iter()
            .filter(|at| other.binary_search(at).is_ok())
            .count();
        // A quarter of the tokens in both, within five standard deviations.
        assert!((both as f64 - n as f64 / 4.0).abs() < 5.0 * (n as f64 * 3.0 / 16.0).sqrt());
    }
}
