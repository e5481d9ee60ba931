use std::path::Path;

use super::*;
use crate::TrainConfig;

fn config(lines: &str) -> OptimizationConfig {
    let text = format!(
        "[data]\ntrain = [\"a.txt\"]\nsequence_length = 8\n\
         [train]\nsteps = 100\nbatch_size = 1\nlearning_rate = 1.0\n{lines}"
    );
    TrainConfig::from_toml(&text, Path::new("c.toml"))
        .unwrap()
        .train
}

#[track_caller]
fn check(lines: &str, expected: &[(u64, f64)]) {
    let config = config(lines);
    for &(step, rate) in expected {
        let got = learning_rate(&config, step);
        assert!(
            (got - rate).abs() < 1e-12,
            "step {step}: expected {rate}, got {got}"
        );
    }
}

#[test]
fn rate_rises_in_a_line_stays_and_falls_in_a_line() {
    check(
        "warmup_steps = 10\ndecay_steps = 20\nmin_learning_rate = 0.2",
        &[
            (0, 0.1),
            (4, 0.5),
            (9, 1.0),
            (10, 1.0),
            (79, 1.0),
            (80, 0.96),
            (89, 0.6),
            (99, 0.2),
        ],
    );
}

#[test]
fn decay_is_a_tenth_of_the_run_by_default() {
    check("", &[(0, 1.0), (89, 1.0), (90, 0.9), (94, 0.5), (99, 0.0)]);
}

#[test]
fn decay_has_other_curves() {
    let square_root = "decay_steps = 100\ndecay_shape = \"one_minus_sqrt\"";
    check(square_root, &[(24, 0.5), (99, 0.0)]);
    check(
        "decay_steps = 100\ndecay_shape = \"cosine\"",
        &[(49, 0.5), (99, 0.0)],
    );
    check("decay_fraction = 0.0", &[(99, 1.0)]);
}

#[test]
fn points_override_the_rest() {
    check(
        "warmup_steps = 50\nlearning_rate_points = [[10, 0], [20, 1.0], [40, 1.0], [40, 0.5], [60, 0.1]]",
        &[
            (0, 0.0),
            (10, 0.0),
            (15, 0.5),
            (20, 1.0),
            (39, 1.0),
            (40, 0.5),
            (50, 0.3),
            (60, 0.1),
            (99, 0.1),
        ],
    );
    check(
        "learning_rate_points = [[5, 0.25]]",
        &[(0, 0.25), (99, 0.25)],
    );
}

#[test]
fn warm_up_is_never_overtaken() {
    check(
        "warmup_steps = 200\ndecay_steps = 50",
        &[(0, 0.005), (60, 0.305), (99, 0.0)],
    );
}
