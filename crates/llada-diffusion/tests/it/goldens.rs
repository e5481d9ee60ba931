//! The reference's results, recorded. Each file tells where it comes from.

use llada_diffusion::{TokenBatch, forward_process, num_transfer_tokens};
use serde_json::Value;

fn cases(json: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(json).unwrap();
    let cases = file["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn unsigned(value: &Value) -> Vec<usize> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_u64().unwrap() as usize)
        .collect()
}

fn ids(value: &Value) -> Vec<u32> {
    unsigned(value).into_iter().map(|id| id as u32).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap() as f32)
        .collect()
}

fn rows<T>(value: &Value, row: impl Fn(&Value) -> Vec<T>) -> Vec<Vec<T>> {
    value.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn num_transfer_tokens_are_the_reference_s() {
    for case in cases(include_str!("../goldens/num_transfer_tokens.json")) {
        let steps = case["steps"].as_u64().unwrap() as usize;
        let (masked, transfer) = match case.get("masked_rows") {
            Some(masked) => (unsigned(masked), rows(&case["transfer_rows"], unsigned)),
            None => (
                vec![case["masked"].as_u64().unwrap() as usize],
                vec![unsigned(&case["transfer"])],
            ),
        };
        for (masked, transfer) in masked.into_iter().zip(transfer) {
            assert_eq!(
                num_transfer_tokens(masked, steps),
                transfer,
                "{masked} in {steps} steps"
            );
        }
    }
}

#[test]
fn the_forward_process_is_the_reference_s() {
    for case in cases(include_str!("../goldens/forward_process.json")) {
        let name = case["name"].as_str().unwrap();
        let input_ids = rows(&case["input_ids"], ids);
        let batch = TokenBatch::new(&input_ids).unwrap();
        let maskable: Option<Vec<bool>> = case.get("prompt_lengths").map(|lengths| {
            let of_row = |(row, prompt_len): (&Vec<u32>, usize)| {
                (0..row.len())
                    .map(move |position| position >= prompt_len)
                    .collect::<Vec<_>>()
            };
            input_ids
                .iter()
                .zip(unsigned(lengths))
                .flat_map(of_row)
                .collect()
        });
        let (t, u) = (floats(&case["t"]), rows(&case["u"], floats).concat());
        let mask = case["mask_token_id"].as_u64().unwrap() as u32;
        let noised = forward_process(&batch, mask, &t, &u, maskable.as_deref()).unwrap();

        assert_eq!(
            noised.batch.ids(),
            rows(&case["noisy"], ids).concat(),
            "{name}"
        );
        let p_mask = floats(&case["p_mask"]);
        for (&at, (&target, &p)) in noised
            .positions
            .iter()
            .zip(noised.targets.iter().zip(&noised.p_mask))
        {
            assert_eq!(target, batch.ids()[at], "{name}");
            let row = batch.offsets().partition_point(|&offset| offset <= at) - 1;
            assert_eq!(p.to_bits(), p_mask[row].to_bits(), "{name}");
        }
    }
}
