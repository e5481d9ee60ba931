//! Logits of every checkpoint, with and without padding, at every CPU level.

use llada::diffusion::{MaskPredictor, TokenBatch};
use llada::{CpuLevel, LladaModel, Precision};
use serde_json::Value;

use crate::files::{Tensors, at_level, load, max_difference, names, root};

/// The recorded cases of one checkpoint; `forward` also has a file of rotary tables.
fn checkpoints() -> Vec<String> {
    let is_model = |name: &String| root().join("models").join(name).is_dir();
    let names: Vec<String> = names("forward", "safetensors")
        .into_iter()
        .filter(is_model)
        .collect();
    assert!(!names.is_empty(), "no checkpoint has recorded logits");
    names
}

fn logits(model: &LladaModel, sequence: &[u32], positions: &[usize]) -> Vec<f32> {
    let batch = TokenBatch::new(&[sequence]).unwrap();
    model.logits(&batch, positions).unwrap()
}

/// Logits of sequences that stand in a padded batch, where the mask is 1.
fn check_padded(model: &LladaModel, tensors: &Tensors, kind: &str, width: usize) -> f64 {
    let name = |part: &str| format!("{kind}.{part}");
    let mask = tensors.rows(&name("attention_mask"));
    let recorded = tensors.f64s(&name("logits"));
    let length = mask[0].len();
    let mut worst = 0.0_f64;
    for (row, (ids, mask)) in tensors
        .rows(&name("input_ids"))
        .iter()
        .zip(&mask)
        .enumerate()
    {
        let kept: Vec<usize> = (0..length).filter(|&at| mask[at] == 1).collect();
        let sequence: Vec<u32> = kept.iter().map(|&at| ids[at]).collect();
        let positions: Vec<usize> = (0..kept.len()).collect();
        let ours = logits(model, &sequence, &positions);
        for (ours, &at) in ours.chunks(width).zip(&kept) {
            let start = (row * length + at) * width;
            worst = worst.max(max_difference(ours, &recorded[start..start + width]));
        }
    }
    worst
}

#[test]
fn f32_logits_are_the_reference_s() {
    for name in checkpoints() {
        let tensors = Tensors::open(&format!("forward/{name}.safetensors"));
        for level in CpuLevel::available() {
            let model = load(&name, &at_level(level), Precision::F32);
            let width = model.info().vocab_size;
            let rows = tensors.counts("seq.rows");
            let ours: Vec<f32> = tensors
                .rows("seq.input_ids")
                .iter()
                .flat_map(|sequence| logits(&model, sequence, &rows))
                .collect();
            let error = max_difference(&ours, &tensors.f64s("seq.logits"));
            assert!(
                error <= 5e-4,
                "{name}, {level:?}: {error:e} from the reference's f32"
            );
            let error = max_difference(&ours, &tensors.f64s("seq.logits_f64"));
            assert!(error <= 3e-4, "{name}, {level:?}: {error:e} from f64");
            for kind in ["pad_left", "pad_right"] {
                if tensors.has(&format!("{kind}.logits")) {
                    let error = check_padded(&model, &tensors, kind, width);
                    assert!(error <= 5e-4, "{name}, {level:?}, {kind}: {error:e}");
                }
            }
            if tensors.has("single.logits") {
                let ours = logits(&model, &tensors.rows("single.input_ids")[0], &[0]);
                let error = max_difference(&ours, &tensors.f64s("single.logits"));
                assert!(error <= 5e-4, "{name}, {level:?}, single: {error:e}");
            }
        }
    }
}

/// In bf16 the distance to the f64 result of the same rounded weights is about that of torch's own
/// bf16 run: mean 1.3, 99th percentile 1.5, largest 2 times, arg max at most 0.02 rarer (a whole
/// position where 0.02 of the positions is less).
#[test]
fn bf16_logits_are_as_near_to_the_truth_as_torch_s() {
    let path = root().join("forward/report.json");
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for name in checkpoints() {
        let Some(torch) = report.get(&name).and_then(|report| report.get("bf16")) else {
            panic!("report.json has no bf16 figures of {name}");
        };
        let figure = |key: &str| torch[key].as_f64().unwrap();
        let tensors = Tensors::open(&format!("forward/{name}.safetensors"));
        // The truth for rounded weights: of row 0 where the weights are not bf16 already.
        let of_row_0 = "seq.logits_bf16weights_f64";
        let truth = if tensors.has(of_row_0) {
            of_row_0
        } else {
            "seq.logits_f64"
        };
        let (truth, shape) = (tensors.f64s(truth), tensors.shape(truth));
        let rows = tensors.counts("seq.rows");
        for level in CpuLevel::available() {
            let model = load(&name, &at_level(level), Precision::Bf16);
            let ours: Vec<f32> = tensors.rows("seq.input_ids")[..shape[0]]
                .iter()
                .flat_map(|sequence| logits(&model, sequence, &rows))
                .collect();
            let mut errors: Vec<f64> = ours
                .iter()
                .zip(&truth)
                .map(|(&x, y)| (f64::from(x) - y).abs())
                .collect();
            errors.sort_by(f64::total_cmp);
            let n = errors.len();
            let (mean, p99, max) = (
                errors.iter().sum::<f64>() / n as f64,
                errors[(n - 1) * 99 / 100],
                errors[n - 1],
            );
            let width = shape[shape.len() - 1];
            let best = |row: &[f64]| (0..width).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            let widened: Vec<f64> = ours.iter().map(|&x| f64::from(x)).collect();
            let agree = widened.chunks(width).zip(truth.chunks(width));
            let agree = agree
                .filter(|(ours, truth)| best(ours) == best(truth))
                .count();
            let n_rows = (n / width) as f64;
            let allowed = ((1.0 - figure("argmax_agree") + 0.02) * n_rows).ceil();
            let what = format!("{name}, {level:?}: mean {mean} p99 {p99} max {max} agree {agree}");
            assert!(mean <= 1.3 * figure("mean_abs_err"), "{what}");
            assert!(p99 <= 1.5 * figure("p99_abs_err"), "{what}");
            assert!(max <= 2.0 * figure("max_abs_err"), "{what}");
            assert!(n_rows - agree as f64 <= allowed, "{what} of {n_rows}");
        }
    }
}
