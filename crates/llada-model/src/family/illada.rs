//! iLLaDA: the layout of Llama, with grouped queries and the embedding as its head.
//!
//! The reference rotates queries and keys in the type of the activations, which is `f32` here
//! whatever the precision of products.
//!
//! Source: `modeling_illada.py` of the published code.

use super::fields::Reader;
use super::places::Names;
use super::{Definition, Family};
use crate::config::Extras;
use crate::{ModelConfig, Result};

pub(super) const DEFINITION: Definition = Definition {
    family: Family::Illada,
    architecture: "ILLaDAForCausalLM",
    model_type: Some("illada"),
    read,
    names: NAMES,
    published_mask: None,
};

/// Names of Llama's layout, which Dream has too.
pub(super) const NAMES: Names = Names {
    root: "",
    anchor: "model.norm.weight",
    parts: &[
        ("wte", "model.embed_tokens"),
        ("attn_norm", "model.layers.N.input_layernorm"),
        ("q_proj", "model.layers.N.self_attn.q_proj"),
        ("k_proj", "model.layers.N.self_attn.k_proj"),
        ("v_proj", "model.layers.N.self_attn.v_proj"),
        ("attn_out", "model.layers.N.self_attn.o_proj"),
        ("ff_norm", "model.layers.N.post_attention_layernorm"),
        ("ff_proj", "model.layers.N.mlp.gate_proj"),
        ("up_proj", "model.layers.N.mlp.up_proj"),
        ("ff_out", "model.layers.N.mlp.down_proj"),
        ("ln_f", "model.norm"),
        ("ff_out", "lm_head"),
    ],
};

fn read(fields: Reader) -> Result<ModelConfig> {
    // A number would mean LayerNorm in place of RMSNorm.
    fields.expect(&[("layer_norm_eps", &["null"])])?;
    // Of queries, keys, values and of what comes out.
    let attention_bias = fields.flag("attention_bias", false)?;
    let mlp_hidden_size = Some(fields.count("intermediate_size")?);
    let extras = Extras {
        attn_out_bias: attention_bias,
        mlp_bias: fields.flag("mlp_bias", false)?,
        ..Extras::default()
    };
    Ok(ModelConfig {
        mlp_hidden_size,
        include_qkv_bias: attention_bias,
        ..fields.common(extras, false)?
    })
}
