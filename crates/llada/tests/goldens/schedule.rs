//! Quotas of the sampler.

use llada::diffusion::num_transfer_tokens;
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
