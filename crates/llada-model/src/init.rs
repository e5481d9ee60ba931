//! Initial parameters, as `init_fn: mitchell` of the reference.

use std::ops::Range;
use std::path::Path;

use llada_tensor::{Device, Philox, Stream, Tensor};
use rayon::prelude::*;

use crate::stored::Stored;
use crate::{ModelConfig, Result};

/// Draws all parameters: normal with a standard deviation by their place, cut at three deviations;
/// norms are one, biases zero.
///
/// Source: `ModuleType` and `init_weights` with `InitFnType.mitchell` in `modeling_llada.py`.
pub(crate) fn initial_parameters(
    config: &ModelConfig,
    device: &Device,
    seed: u64,
) -> Result<Vec<Tensor>> {
    let rng = Philox::new(seed, Stream::Init);
    let tensor = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let n = shape.iter().product();
        let values = match standard_deviation(config, &name, &shape) {
            None => vec![constant(&name); n],
            Some(std) => (0..n)
                .into_par_iter()
                .map(|at| normal(&rng, index, at, std))
                .collect(),
        };
        Ok(Tensor::from_f32(device, &shape, &values)?)
    };
    let shapes = config.parameter_shapes().into_iter().enumerate();
    shapes.map(tensor).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
fn normal(rng: &Philox, tensor: usize, at: usize, std: f64) -> f32 {
    let [at, tensor] = [at, tensor].map(index_u32);
    let mut draws = (0..).map(|attempt| rng.normal_pair([at, tensor, attempt])[0]);
    (draws.find(|x| x.abs() <= 3.0).unwrap_or(0.0) * std) as f32
}

/// The value of all of a norm or a bias.
fn constant(name: &str) -> f32 {
    if name.ends_with(".bias") { 0.0 } else { 1.0 }
}

/// All parameters with the standard deviations of [`initial_parameters`], but uniform and made row
/// by row when they are asked for: quickly, and without room for more than a row.
pub(crate) fn uniform_parameters(config: &ModelConfig, seed: u64) -> Vec<Stored<'static>> {
    let stored = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let std = standard_deviation(config, &name, &shape);
        let constant = constant(&name);
        let rng = Philox::new(seed, Stream::Init);
        Stored {
            name,
            path: Path::new("random weights"),
            shape,
            is_bf16: true,
            fill: Box::new(move |rows, out| match std {
                Some(std) => fill_uniform(&rng, index, rows, std, out),
                None => out.fill(constant),
            }),
            codes: None,
            blocks: None,
            range: None,
        }
    };
    let shapes = config.parameter_shapes();
    shapes.into_iter().enumerate().map(stored).collect()
}

/// Rows of the matrix `tensor`, uniform around zero, of sixteen bits a value: a draw gives eight.
fn fill_uniform(rng: &Philox, tensor: usize, rows: Range<usize>, std: f64, out: &mut [f32]) {
    #[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
    let unit = (std * 3.0_f64.sqrt() / 32_768.0) as f32;
    let width = (out.len() / rows.len().max(1)).max(1);
    for (row, out) in rows.zip(out.chunks_exact_mut(width)) {
        for (at, out) in out.chunks_mut(8).enumerate() {
            let words = rng.words([at, row, tensor].map(index_u32));
            let halves = words.into_iter().flat_map(|word| {
                let [a, b, c, d] = word.to_le_bytes();
                [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
            });
            for (x, half) in out.iter_mut().zip(halves) {
                *x = (f32::from(half) - 32_767.5) * unit;
            }
        }
    }
}

fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// `None` for norms and biases.
fn standard_deviation(config: &ModelConfig, name: &str, shape: &[usize]) -> Option<f64> {
    let ([_, fan_in] | [_, _, fan_in]) = *shape else {
        return None;
    };
    let layer = name
        .strip_prefix("model.transformer.blocks.")
        .and_then(|rest| {
            let (layer, part) = rest.split_once('.')?;
            let layer: u32 = layer.parse().ok()?;
            let is_output = ["attn_out.", "ff_out."]
                .iter()
                .any(|end| part.contains(end));
            is_output.then_some(layer)
        });
    #[expect(clippy::cast_precision_loss, reason = "widths fit")]
    let (fan_in, d_model) = (fan_in as f64, config.d_model as f64);
    Some(match layer {
        Some(layer) => 1.0 / (2.0 * fan_in * f64::from(layer + 1)).sqrt(),
        None => 1.0 / d_model.sqrt(),
    })
}

#[cfg(test)]
mod tests;
