//! Tests of the forward pass.

use std::collections::BTreeMap;

use llada_diffusion::{MaskPredictor as _, Query, Trainable as _};
use serde_json::json;

use super::*;
use crate::LladaModel;
use crate::tests::{bits, logit_bits, model};

const V: usize = 11;
const IDS: [u32; 7] = [5, 0, 3, 10, 0, 5, 2];

/// The Transformer of one sequence in `f64`, as the formulas have it.
struct Plain<'a> {
    config: &'a ModelConfig,
    values: BTreeMap<String, Vec<f64>>,
}

impl Plain<'_> {
    fn get(&self, name: &str) -> Option<&Vec<f64>> {
        self.values.get(&format!("model.transformer.{name}"))
    }

    /// `x W^T + b`
    fn linear(&self, x: &[f64], name: &str) -> Vec<f64> {
        let weight = self.get(&format!("{name}.weight")).expect("a weight");
        let mut y: Vec<f64> = weight.chunks(x.len()).map(|row| dot(row, x)).collect();
        if let Some(bias) = self.get(&format!("{name}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        y
    }

    /// `x / sqrt(mean(x^2) + eps) * w + b`
    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = dot(x, x) / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(self.config.rms_norm_eps)).sqrt();
        let weight = self.get(&format!("{name}.weight")).expect("a weight");
        let mut y: Vec<f64> = x.iter().zip(weight).map(|(x, w)| x * scale * w).collect();
        if let Some(bias) = self.get(&format!("{name}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        y
    }

    /// Turns the values `i` and `i + E / 2` of each head by `position * theta^(-2 i / E)`.
    fn rope(&self, x: &mut [f64], position: usize) {
        let half = self.config.head_dim() / 2;
        for head in x.chunks_mut(2 * half) {
            for i in 0..half {
                let power = -(i as f64) / half as f64;
                let angle = position as f64 * f64::from(self.config.rope_theta).powf(power);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    fn logits(&self, ids: &[u32], block_size: usize) -> Vec<f64> {
        let (d, e) = (self.config.d_model, self.config.head_dim());
        let heads_per_key = self.config.n_heads / self.config.kv_heads();
        let wte = self.get("wte.weight").expect("a weight");
        let mut x: Vec<Vec<f64>> = ids
            .iter()
            .map(|&id| wte[id as usize * d..][..d].to_vec())
            .collect();
        for layer in 0..self.config.n_layers {
            let name = |part: &str| format!("blocks.{layer}.{part}");
            let project = |part: &str, rotated: bool| -> Vec<Vec<f64>> {
                let row = |(position, x): (usize, &Vec<f64>)| {
                    let mut y = self.linear(&self.norm(x, &name("attn_norm")), &name(part));
                    if rotated {
                        self.rope(&mut y, position);
                    }
                    y
                };
                x.iter().enumerate().map(row).collect()
            };
            let (q, k) = (project("q_proj", true), project("k_proj", true));
            let v = project("v_proj", false);
            for (at, x) in x.iter_mut().enumerate() {
                let seen: Vec<usize> = (0..ids.len())
                    .filter(|other| other / block_size <= at / block_size)
                    .collect();
                let mut y = Vec::new();
                for (head, q) in q[at].chunks(e).enumerate() {
                    let of_head = head / heads_per_key * e..(head / heads_per_key + 1) * e;
                    let score = |&other: &usize| dot(q, &k[other][of_head.clone()]);
                    let scale = (e as f64).sqrt();
                    let p: Vec<f64> = seen.iter().map(|at| (score(at) / scale).exp()).collect();
                    let sum: f64 = p.iter().sum();
                    y.extend(of_head.clone().map(|i| {
                        let terms = seen.iter().zip(&p).map(|(&other, p)| p * v[other][i]);
                        terms.sum::<f64>() / sum
                    }));
                }
                add(x, &self.linear(&y, &name("attn_out")));
                let y = self.norm(x, &name("ff_norm"));
                let (gate, up) = (
                    self.linear(&y, &name("ff_proj")),
                    self.linear(&y, &name("up_proj")),
                );
                let swiglu = |(g, u): (&f64, &f64)| g / (1.0 + (-g).exp()) * u;
                let y: Vec<f64> = gate.iter().zip(&up).map(swiglu).collect();
                add(x, &self.linear(&y, &name("ff_out")));
            }
        }
        let head = if self.config.weight_tying {
            "wte"
        } else {
            "ff_out"
        };
        let logits = |x: &Vec<f64>| self.linear(&self.norm(x, "ln_f"), head);
        x.iter().flat_map(logits).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `block_size` is that of the plain computation.
#[track_caller]
fn check(model: &LladaModel, block_size: usize) {
    let wide = |p: &Parameter| {
        let values = p.value.to_vec_f32().expect("f32");
        let values = values.into_iter().map(f64::from).collect();
        (p.name.clone(), values)
    };
    let plain = Plain {
        config: model.config(),
        values: model.parameters().iter().map(wide).collect(),
    };
    let expected = plain.logits(&IDS, block_size);
    let largest = expected.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    assert!(largest > 0.5, "logits that say something: {largest}");
    // Some ten sums of at most 24 products lie one behind another.
    let bound = 256.0 * f64::from(f32::EPSILON) * largest;
    let logits = logit_bits(model, &[&IDS]);
    assert_eq!(logits.len(), expected.len());
    for (at, (got, expected)) in logits.into_iter().zip(expected).enumerate() {
        let got = f64::from(f32::from_bits(got));
        assert!((got - expected).abs() <= bound, "{at}: {got}, {expected}");
    }
}

#[test]
fn logits_are_those_of_a_plain_computation() {
    let all = IDS.len();
    check(&model(&json!({"n_layers": 1})), all);
    check(&model(&json!({})), all);
    check(&model(&json!({"n_kv_heads": null})), all);
    check(&model(&json!({"n_kv_heads": 1})), all);
    check(&model(&json!({"weight_tying": true})), all);
    check(&model(&json!({"include_qkv_bias": true})), all);
    check(&model(&json!({"bias_for_layer_norm": true})), all);
    check(&model(&json!({"include_bias": true})), all);
    let tied = json!({"include_bias": true, "weight_tying": true, "rope_theta": 500.0});
    check(&model(&tied), all);
}

#[test]
fn causal_logits_are_those_of_a_plain_computation() {
    check(&model(&json!({"causal": true})), 1);
    let size = NonZeroUsize::new(3).expect("positive");
    let by_blocks = model(&json!({})).block_causal(size).expect("supported");
    check(&by_blocks, 3);
}

/// Which positions have other logits when the token at `changed` is another.
fn seeing(model: &LladaModel, changed: usize) -> Vec<usize> {
    let mut ids = IDS;
    ids[changed] = 7;
    let (before, after) = (logit_bits(model, &[&IDS]), logit_bits(model, &[&ids]));
    let rows = before.chunks(V).zip(after.chunks(V)).enumerate();
    rows.filter(|(_, (a, b))| a != b)
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn a_position_sees_what_its_attention_allows_and_nothing_later() {
    let all = model(&json!({}));
    let causal = model(&json!({"causal": true}));
    let size = NonZeroUsize::new(3).expect("positive");
    let by_blocks = model(&json!({})).block_causal(size).expect("supported");
    for changed in 0..IDS.len() {
        let rest = |from: usize| (from..IDS.len()).collect::<Vec<_>>();
        assert_eq!(seeing(&all, changed), rest(0));
        assert_eq!(seeing(&causal, changed), rest(changed));
        assert_eq!(seeing(&by_blocks, changed), rest(changed / 3 * 3));
    }
}

#[test]
fn logits_depend_neither_on_batch_mates_nor_on_what_else_is_asked() {
    let model = model(&json!({"include_bias": true}));
    let alone = logit_bits(&model, &[&IDS]);
    let batched = logit_bits(&model, &[&[9, 9, 0], &IDS, &[4; 16]]);
    assert_eq!(batched[3 * V..][..alone.len()], alone);
    let batch = TokenBatch::new(&[&IDS]).expect("not empty");
    let some = model.logits(Query::new(&batch, &[1, 4])).expect("fits");
    let expected = [&alone[V..2 * V], &alone[4 * V..5 * V]].concat();
    assert_eq!(bits(&some), expected);
}

#[track_caller]
fn check_error(ids: &[u32], positions: &[usize], expected: &str) {
    let model = model(&json!({}));
    let batch = TokenBatch::new(&[ids]).expect("not empty");
    let error = model
        .logits(Query::new(&batch, positions))
        .expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_is_out_of_range_is_an_error_that_names_it() {
    check_error(
        &[3, 11],
        &[0],
        "token id 11 at position 1 is outside the vocabulary of 11",
    );
    check_error(
        &[3; 17],
        &[0],
        "sequence of 17 tokens exceeds the context of 16",
    );
}
