//! Quotas of the sampler, and the learning rates of the paper.

use std::path::Path;

use llada::diffusion::num_transfer_tokens;
use llada::train::{TrainConfig, learning_rate};
use serde_json::Value;

use crate::files::{ids, root, rows};

#[test]
fn quotas_are_the_reference_s() {
    let path = root().join("schedule/num_transfer_tokens.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let steps = case["steps"].as_u64().unwrap() as usize;
        // A case is one row, or a batch of rows.
        let (masked, recorded) = match case.get("masked_rows") {
            Some(masked) => (ids(masked), rows(&case["transfer_rows"])),
            None => (
                ids(&Value::from(vec![case["masked"].clone()])),
                vec![ids(&case["transfer"])],
            ),
        };
        assert_eq!(masked.len(), recorded.len());
        for (masked, recorded) in masked.into_iter().zip(recorded) {
            let ours = num_transfer_tokens(masked as usize, steps);
            let recorded: Vec<usize> = recorded.iter().map(|&n| n as usize).collect();
            assert_eq!(ours, recorded, "{masked} in {steps}");
        }
    }
}

/// Equal as the `f32` that the optimizer takes; in `f64` the last bit depends on how the line is
/// written down.
#[test]
fn learning_rates_are_the_paper_s() {
    let path = root().join("schedule/learning_rate.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let check = |schedule: &str, points: &[(&str, &str)]| {
        let recorded = &recorded[schedule];
        let rate = |key: &str| recorded.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let point = |(step, key): &(&str, &str)| {
            let step = recorded.get(step).map_or(0, |step| step.as_u64().unwrap());
            format!("[{step}, {:e}]", rate(key))
        };
        let points: Vec<String> = points.iter().map(point).collect();
        let text = format!(
            "[data]\ntrain = [\"a.txt\"]\nsequence_length = 8\n[train]\nsteps = 9\nbatch_size = 1\n\
             learning_rate_points = [{}]",
            points.join(", ")
        );
        let config = TrainConfig::from_toml(&text, Path::new("c.toml")).unwrap();
        for entry in recorded["table"].as_array().unwrap() {
            let (step, expected) = (entry[0].as_u64().unwrap(), entry[1].as_f64().unwrap());
            let ours = learning_rate(&config.train, step);
            let is_same = (ours as f32).to_bits() == (expected as f32).to_bits()
                && (ours - expected).abs() <= 2.0 * f64::EPSILON * expected;
            assert!(
                is_same,
                "{schedule}, step {step}: {ours:e}, not {expected:e}"
            );
        }
    };
    let pretrain = [
        ("begin", "zero"),
        ("warmup", "peak"),
        ("drop_at", "peak"),
        ("drop_at", "middle"),
        ("decay_at", "middle"),
        ("total", "final"),
    ];
    check("pretrain", &pretrain);
    let sft = [
        ("begin", "zero"),
        ("warmup", "peak"),
        ("decay_from", "peak"),
        ("total", "final"),
    ];
    check("sft", &sft);
}
