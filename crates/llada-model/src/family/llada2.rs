//! `LLaDA2.0`, `LLaDA2.1` and `LLaDA2.2`: attention that is causal by blocks, and experts that a sigmoid with a
//! bias chooses, among groups of experts or, in 2.2, among those that a block of tokens may use.
//!
//! Nothing in a `config.json` tells 2.0 from 2.1; 2.2 has an `expert_capacity`, and its groups are
//! not used. `norm_topk_prob`, `score_function`, `router_dtype`, `rotary_dim` and `norm_head` are
//! read by no code.
//!
//! Source: `configuration_llada2_moe.py` and `modeling_llada2_moe.py` of the published code; of 2.2
//! the descriptions by the engines that run it.

use std::num::NonZeroUsize;

use llada_tensor::ops::moe::{Router, RouterRule};

use super::fields::Reader;
use super::places::Names;
use super::{Definition, Family};
use crate::config::{EditTokens, Extras, MoeConfig};
use crate::{Error, ModelConfig, Result};

pub(super) const DEFINITION: Definition = Definition {
    family: Family::Llada2,
    architecture: "LLaDA2MoeModelLM",
    model_type: Some("llada2_moe"),
    read,
    names: NAMES,
    published_mask: Some((157_184, 156_895)),
};

/// Positions of a block where the configuration says nothing, as in all published models.
const BLOCK_SIZE: usize = 32;

const NAMES: Names = Names {
    root: "",
    anchor: "model.norm.weight",
    parts: &[
        ("wte", "model.word_embeddings"),
        ("attn_norm", "model.layers.N.input_layernorm"),
        ("q_proj", "model.layers.N.attention.query_key_value"),
        ("k_proj", "model.layers.N.attention.query_key_value"),
        ("v_proj", "model.layers.N.attention.query_key_value"),
        ("q_norm", "model.layers.N.attention.query_layernorm"),
        ("k_norm", "model.layers.N.attention.key_layernorm"),
        ("attn_out", "model.layers.N.attention.dense"),
        ("ff_norm", "model.layers.N.post_attention_layernorm"),
        ("ff_proj", "model.layers.N.mlp.gate_proj"),
        ("up_proj", "model.layers.N.mlp.up_proj"),
        ("ff_out", "model.layers.N.mlp.down_proj"),
        ("experts.ff_proj", "model.layers.N.mlp.experts.E.gate_proj"),
        ("experts.up_proj", "model.layers.N.mlp.experts.E.up_proj"),
        ("experts.ff_out", "model.layers.N.mlp.experts.E.down_proj"),
        (
            "shared_expert.ff_proj",
            "model.layers.N.mlp.shared_experts.gate_proj",
        ),
        (
            "shared_expert.up_proj",
            "model.layers.N.mlp.shared_experts.up_proj",
        ),
        (
            "shared_expert.ff_out",
            "model.layers.N.mlp.shared_experts.down_proj",
        ),
        ("router", "model.layers.N.mlp.gate"),
        ("router.bias", "model.layers.N.mlp.gate.expert_bias"),
        ("ln_f", "model.norm"),
        ("ff_out", "lm_head"),
    ],
};

fn read(fields: Reader) -> Result<ModelConfig> {
    fields.expect(&[("use_sliding_window", &["false", "null"])])?;
    let n_layers = fields.count("num_hidden_layers")?;
    let n_dense = fields.count("first_k_dense_replace")?;
    let head_dim = match fields.optional_count("head_dim")? {
        Some(head_dim) => head_dim,
        None => fields.count("hidden_size")? / fields.count("num_attention_heads")?.max(1),
    };
    let scale = fields.real("routed_scaling_factor")?;
    let capacity = fields
        .optional_count("expert_capacity")?
        .filter(|&capacity| capacity > 0);
    let rule = match capacity {
        Some(capacity) => RouterRule::Capacity { capacity, scale },
        None => RouterRule::Groups {
            n_group: fields.count("n_group")?,
            topk_group: fields.count("topk_group")?,
            scale,
        },
    };
    let expert_width = fields.count("moe_intermediate_size")?;
    let n_shared = fields.optional_count("num_shared_experts")?.unwrap_or(0);
    let moe = MoeConfig {
        router: Router {
            n_experts: fields.count("num_experts")?,
            k: fields.count("num_experts_per_tok")?,
            rule,
        },
        router_bias: fields.flag("moe_router_enable_expert_bias", true)?,
        expert_width,
        shared_width: (n_shared > 0).then_some(n_shared * expert_width),
        layers: (0..n_layers).map(|layer| layer >= n_dense).collect(),
    };
    let edit_tokens = match capacity {
        None => None,
        Some(_) => Some(EditTokens {
            delete: fields.id("delete_token_id")?,
            split: fields.id("split_token_id")?,
        }),
    };
    let factor = fields
        .optional_real("partial_rotary_factor")?
        .unwrap_or(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small number"
    )]
    let rotary_dim = (head_dim as f32 * factor) as usize;
    if !(0.0..=1.0).contains(&factor) || rotary_dim == 0 || rotary_dim % 2 == 1 {
        let expected = "a share of head_dim that is even and not 0";
        return Err(Error::unsupported(
            "partial_rotary_factor",
            factor,
            expected,
        ));
    }
    let extras = Extras {
        head_dim: Some(head_dim),
        rotary_dim: Some(rotary_dim),
        qk_norm: fields.flag("use_qk_norm", true)?,
        attn_out_bias: fields.flag("use_bias", false)?,
        moe: Some(moe),
        edit_tokens,
        ..Extras::default()
    };
    let mlp_hidden_size = Some(fields.count("intermediate_size")?);
    let include_qkv_bias = fields.flag("use_qkv_bias", false)?;
    let block_size = fields.optional_count("block_size")?.unwrap_or(BLOCK_SIZE);
    let block_size = NonZeroUsize::new(block_size)
        .ok_or_else(|| Error::unsupported("block_size", 0, "at least 1"))?;
    Ok(ModelConfig {
        mlp_hidden_size,
        include_qkv_bias,
        block_size: Some(block_size),
        ..fields.common(extras, true)?
    })
}
