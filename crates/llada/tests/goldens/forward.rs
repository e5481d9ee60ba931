//! Logits and hidden states of every checkpoint, with and without padding, at every CPU level.

use llada::diffusion::{MaskPredictor, Query, TokenBatch};
use llada::tensor::ops::rope::RopeTable;
use llada::tensor::{Tape, Tensor, Var};
use llada::{LladaModel, Precision};
use serde_json::Value;

use crate::families::block_size;
use crate::files::{Tensors, devices, load, max_difference, names, root};

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
    model.logits(Query::new(&batch, positions)).unwrap()
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

/// Largest difference of each layer's hidden states, which are recorded for the first sequence.
fn check_hidden(model: &LladaModel, tensors: &Tensors) -> f64 {
    let batch = TokenBatch::new(&tensors.rows("seq.input_ids")[..1]).unwrap();
    let states = model.hidden_states(&batch).unwrap();
    assert!(
        !tensors.has(&format!("seq.hidden.{:02}", states.len())),
        "a layer is missing"
    );
    let of_layer = |(layer, state): (usize, &Tensor)| {
        let recorded = tensors.f64s(&format!("seq.hidden.{layer:02}"));
        max_difference(&state.to_vec_f32().unwrap(), &recorded)
    };
    states.iter().enumerate().map(of_layer).fold(0.0, f64::max)
}

/// The checkpoints with a recorded tensor; at least one.
#[expect(clippy::print_stdout, reason = "tells what is skipped")]
fn checkpoints_with(tensor: &str) -> Vec<(String, Tensors)> {
    let mut found = Vec::new();
    for name in checkpoints() {
        let tensors = Tensors::open(&format!("forward/{name}.safetensors"));
        if tensors.has(tensor) {
            found.push((name, tensors));
        } else {
            println!("skipped: {name} has no recorded {tensor}");
        }
    }
    assert!(!found.is_empty(), "no checkpoint has {tensor}");
    found
}

#[test]
fn hidden_states_are_the_reference_s() {
    for (name, tensors) in checkpoints_with("seq.hidden.00") {
        for device in devices() {
            let model = load(&name, &device, Precision::F32);
            let error = check_hidden(&model, &tensors);
            assert!(error <= 5e-4, "{name}, {device:?}: {error:e}");
        }
    }
}

#[test]
fn block_causal_logits_are_the_reference_s() {
    for (name, tensors) in checkpoints_with("block_causal.logits") {
        for device in devices() {
            let model = load(&name, &device, Precision::F32);
            let size = block_size(&tensors, "block_causal.attention_bias").unwrap();
            let model = model.block_causal(size).unwrap();
            let sequence = &tensors.rows("block_causal.input_ids")[0];
            let positions: Vec<usize> = (0..sequence.len()).collect();
            let ours = logits(&model, sequence, &positions);
            let error = max_difference(&ours, &tensors.f64s("block_causal.logits"));
            assert!(error <= 5e-4, "{name}, {device:?}: {error:e}");
        }
    }
}

/// Rotating (1, 0) gives the tables: (cosine, sine).
#[test]
fn rotary_tables_are_the_reference_s() {
    let tensors = Tensors::open("forward/rope.safetensors");
    let positions: Vec<u32> = tensors.rows("positions").remove(0);
    let length = *positions.iter().max().unwrap() as usize + 1;
    let names = tensors.names();
    let tables: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".cos"))
        .collect();
    assert!(!tables.is_empty());
    for table in tables {
        let (theta, head_dim) = table
            .strip_prefix("theta")
            .unwrap()
            .split_once(".hd")
            .unwrap();
        let (theta, head_dim) = (theta.parse().unwrap(), head_dim.parse::<usize>().unwrap());
        let unit = |at: usize| f32::from(at % head_dim < head_dim / 2);
        let x: Vec<f32> = (0..positions.len() * head_dim).map(unit).collect();
        // The reference's tables repeat each half.
        let recorded = |part: &str| tensors.f64s(&format!("{table}.{part}"));
        let expected: Vec<f64> = (recorded("cos")
            .chunks(head_dim)
            .zip(recorded("sin").chunks(head_dim)))
        .flat_map(|(cos, sin)| [&cos[..head_dim / 2], &sin[head_dim / 2..]].concat())
        .collect();
        for device in devices() {
            let rope = RopeTable::new(&device, length, head_dim, theta).unwrap();
            let x = Tensor::from_f32(&device, &[positions.len(), head_dim], &x).unwrap();
            let mut tape = Tape::inference(&device, Precision::F32);
            let y = tape.rope(&Var::constant(x), &rope, &positions).unwrap();
            let error = max_difference(&y.value().to_vec_f32().unwrap(), &expected);
            assert!(error <= 5e-4, "{table}, {device:?}: {error:e}");
        }
    }
}

#[test]
fn f32_logits_are_the_reference_s() {
    for name in checkpoints() {
        let tensors = Tensors::open(&format!("forward/{name}.safetensors"));
        for device in devices() {
            let model = load(&name, &device, Precision::F32);
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
                "{name}, {device:?}: {error:e} from the reference's f32"
            );
            let error = max_difference(&ours, &tensors.f64s("seq.logits_f64"));
            assert!(error <= 3e-4, "{name}, {device:?}: {error:e} from f64");
            for kind in ["pad_left", "pad_right"] {
                if tensors.has(&format!("{kind}.logits")) {
                    let error = check_padded(&model, &tensors, kind, width);
                    assert!(error <= 5e-4, "{name}, {device:?}, {kind}: {error:e}");
                }
            }
            if tensors.has("single.logits") {
                let ours = logits(&model, &tensors.rows("single.input_ids")[0], &[0]);
                let error = max_difference(&ours, &tensors.f64s("single.logits"));
                assert!(error <= 5e-4, "{name}, {device:?}, single: {error:e}");
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
        for device in devices() {
            let model = load(&name, &device, Precision::Bf16);
            let ours: Vec<f32> = tensors.rows("seq.input_ids")[..shape[0]]
                .iter()
                .flat_map(|sequence| logits(&model, sequence, &rows))
                .collect();
            let figures = Bf16Figures {
                mean: figure("mean_abs_err"),
                p99: figure("p99_abs_err"),
                max: figure("max_abs_err"),
                argmax_agree: figure("argmax_agree") - 0.02,
            };
            let width = shape[shape.len() - 1];
            figures.check(
                &format!("{name}, {device:?}"),
                (&ours, &truth),
                width,
                |_| true,
            );
        }
    }
}

/// What the reference's own run in bf16 is off from the truth.
pub(crate) struct Bf16Figures {
    pub(crate) mean: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// Share of the rows whose best token is the truth's, with what may be lost of it.
    pub(crate) argmax_agree: f64,
}

impl Bf16Figures {
    /// Ours `[rows, width]` is at most 1.3 times as far from the truth in the mean, 1.5 and 2 times
    /// at the 99th percentile and at most. A best token is wrong only where the truth's lead cannot
    /// be closed by an error of the reference's size on either side. `counts`: the rows whose errors
    /// count, three quarters at least: a token with another expert has other values.
    pub(crate) fn check(
        &self,
        what: &str,
        (ours, truth): (&[f32], &[f64]),
        width: usize,
        counts: impl Fn(usize) -> bool,
    ) {
        assert_eq!(ours.len(), truth.len(), "{what}");
        let errors = |(ours, truth): (&[f32], &[f64])| -> Vec<f64> {
            let pairs = ours.iter().zip(truth);
            pairs.map(|(&x, y)| (f64::from(x) - y).abs()).collect()
        };
        let rows = || ours.chunks(width).zip(truth.chunks(width));
        let counted = rows().enumerate().filter(|(row, _)| counts(*row));
        let mut counted: Vec<f64> = counted.flat_map(|(_, row)| errors(row)).collect();
        counted.sort_by(f64::total_cmp);
        let n = counted.len();
        assert!(
            4 * n > 3 * ours.len(),
            "{what}: of {} values only {n} count",
            ours.len()
        );
        let mean = counted.iter().sum::<f64>() / n as f64;
        let (p99, max) = (counted[(n - 1) * 99 / 100], counted[n - 1]);
        let is_wrong = |(ours, truth): &(&[f32], &[f64])| {
            let best = (0..width)
                .max_by(|&a, &b| truth[a].total_cmp(&truth[b]))
                .unwrap();
            let got = (0..width)
                .max_by(|&a, &b| ours[a].total_cmp(&ours[b]))
                .unwrap();
            truth[best] - truth[got] > 2.0 * self.max
        };
        let wrong = rows().filter(is_wrong).count();
        let n_rows = ours.len() / width;
        let allowed = ((1.0 - self.argmax_agree) * n_rows as f64).ceil();
        let what = format!("{what}: mean {mean} p99 {p99} max {max} wrong {wrong} of {n_rows}");
        assert!(mean <= 1.3 * self.mean, "{what}");
        assert!(p99 <= 1.5 * self.p99, "{what}");
        assert!(max <= 2.0 * self.max, "{what}");
        assert!(wrong as f64 <= allowed, "{what}");
    }
}
