//! The dense LLaDA: its fields and names are those of [`crate::ModelConfig`].
//!
//! Source: `configuration_llada.py` and `modeling_llada.py` of the published checkpoints.

use super::Fields;
use super::places::Names;
use crate::Result;

/// In `architectures`.
pub(crate) const ARCHITECTURE: &str = "LLaDAModelLM";
/// In `model_type`.
pub(super) const MODEL_TYPE: &str = "llada";

/// Fields of the reference that change the computation, with the values that are supported.
pub(crate) const SUPPORTED_VALUES: [(&str, &[&str]); 11] = [
    ("activation_type", &["\"silu\"", "\"swiglu\""]),
    ("block_type", &["\"llama\""]),
    ("layer_norm_type", &["\"rms\""]),
    ("rope", &["true"]),
    ("alibi", &["false"]),
    ("attention_layer_norm", &["false"]),
    ("input_emb_norm", &["false"]),
    ("layer_norm_with_affine", &["true"]),
    ("scale_logits", &["false"]),
    ("block_group_size", &["1"]),
    ("multi_query_attention", &["null", "false"]),
];

/// Names are as they are.
pub(super) const NAMES: Names = Names {
    root: "model.transformer.",
    anchor: "ln_f.weight",
    parts: &[],
};

/// Brings fields to where [`crate::ModelConfig`] has them.
///
/// # Errors
/// As [`super::rope::take_base`].
pub(crate) fn prepare(fields: &mut Fields) -> Result<()> {
    super::rope::take_base(fields, false)
}
