//! Dream, Dream-Coder and `DiffuCoder`: the layout of Qwen2.5, with logits that are shifted by one.
//!
//! Source: `configuration_dream.py` and `modeling_dream.py` of the published code.

use super::fields::Reader;
use super::{Definition, Family, illada};
use crate::config::Extras;
use crate::{ModelConfig, Result};

pub(super) const DEFINITION: Definition = Definition {
    family: Family::Dream,
    architecture: "DreamModel",
    model_type: Some("Dream"),
    read,
    names: illada::NAMES,
    published_mask: None,
};

fn read(fields: Reader) -> Result<ModelConfig> {
    fields.expect(&[("use_sliding_window", &["false", "null"])])?;
    let mlp_hidden_size = Some(fields.count("intermediate_size")?);
    let extras = Extras {
        shifts_logits: true,
        ..Extras::default()
    };
    Ok(ModelConfig {
        mlp_hidden_size,
        // Of queries, keys and values, and not of what comes out.
        include_qkv_bias: true,
        ..fields.common(extras, false)?
    })
}
