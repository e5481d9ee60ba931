//! Small models for the tests of this crate.

use std::path::Path;

use llada_diffusion::{MaskPredictor, Query, TokenBatch};
use llada_tensor::{CpuConfig, Device, Philox, Precision, Stream, Tensor};
use serde_json::{Value, json};

use crate::{LladaModel, ModelConfig};

pub(crate) fn device() -> Device {
    Device::cpu(CpuConfig::default()).expect("a processor")
}

/// Two blocks with grouped heads, and the given fields of `config.json`.
pub(crate) fn config(fields: &Value) -> ModelConfig {
    let mut json = json!({
        "d_model": 16, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "mlp_hidden_size": 24,
        "vocab_size": 11, "max_sequence_length": 16, "mask_token_id": 0, "eos_token_id": 1,
    });
    for (field, value) in fields.as_object().expect("fields") {
        json[field] = value.clone();
    }
    let json = serde_json::to_vec(&json).expect("plain fields");
    ModelConfig::from_json(&json, Path::new("config.json")).expect("supported")
}

/// A model with random values everywhere, in norms and biases too.
pub(crate) fn model(fields: &Value) -> LladaModel {
    let (config, device) = (config(fields), device());
    let philox = Philox::new(4, Stream::Test);
    let value = |(index, (name, shape)): (u32, (String, Vec<usize>))| {
        let middle = if name.ends_with("norm.weight") {
            1.0
        } else {
            0.0
        };
        let numel: usize = shape.iter().product();
        let n = u32::try_from(numel).expect("small");
        let draw = |at| middle + philox.uniform_f32([at, index, 0]) - 0.5;
        let values: Vec<f32> = (0..n).map(draw).collect();
        Tensor::from_f32(&device, &shape, &values).expect("fits")
    };
    let values = (0..).zip(config.parameter_shapes()).map(value).collect();
    LladaModel::new(config, &device, Precision::F32, values).expect("supported")
}

/// Bits of the logits of all positions `[T, V]`.
#[track_caller]
pub(crate) fn logit_bits(model: &dyn MaskPredictor, sequences: &[&[u32]]) -> Vec<u32> {
    let batch = TokenBatch::new(sequences).expect("not empty");
    let positions: Vec<usize> = (0..batch.n_tokens()).collect();
    bits(&model.logits(Query::new(&batch, &positions)).expect("fits"))
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}
