//! Initial parameters, as `init_fn: mitchell` of the reference.

use llada_tensor::{Device, Philox, Stream, Tensor};

use crate::{ModelConfig, Result};

/// Draws the parameter `name`: normal with a standard deviation by its place, cut at three
/// deviations; norms are one, biases zero.
///
/// Source: `ModuleType` and `init_weights` with `InitFnType.mitchell` in `modeling_llada.py`.
pub(crate) fn initial_parameter(
    config: &ModelConfig,
    device: &Device,
    index: usize,
    name: &str,
    shape: &[usize],
    seed: u64,
) -> Result<Tensor> {
    let n = shape.iter().product();
    let Some(std) = standard_deviation(config, name, shape) else {
        let value = if name.ends_with(".bias") { 0.0 } else { 1.0 };
        return Ok(Tensor::from_f32(device, shape, &vec![value; n])?);
    };
    let rng = Philox::new(seed, Stream::Init);
    let tensor = u32::try_from(index).unwrap_or(u32::MAX);
    let values: Vec<f32> = (0..n)
        .map(|at| {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            let draw = (0..)
                .map(|attempt| rng.normal_pair([at, tensor, attempt])[0])
                .find(|x| x.abs() <= 3.0)
                .unwrap_or(0.0);
            #[expect(clippy::cast_possible_truncation, reason = "parameters are f32")]
            let value = (draw * std) as f32;
            value
        })
        .collect();
    Ok(Tensor::from_f32(device, shape, &values)?)
}

/// `None` for norms and biases.
fn standard_deviation(config: &ModelConfig, name: &str, shape: &[usize]) -> Option<f64> {
    let [_, fan_in] = *shape else { return None };
    let layer = name
        .strip_prefix("model.transformer.blocks.")
        .and_then(|rest| {
            let (layer, part) = rest.split_once('.')?;
            let layer: u32 = layer.parse().ok()?;
            (part.starts_with("attn_out") || part.starts_with("ff_out")).then_some(layer)
        });
    #[expect(clippy::cast_precision_loss, reason = "widths fit")]
    let (fan_in, d_model) = (fan_in as f64, config.d_model as f64);
    Some(match layer {
        Some(layer) => 1.0 / (2.0 * fan_in * f64::from(layer + 1)).sqrt(),
        None => 1.0 / d_model.sqrt(),
    })
}
