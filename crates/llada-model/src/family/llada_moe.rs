//! LLaDA-MoE: experts that a softmax chooses, its probabilities as weights.
//!
//! The reference reads and ignores `norm_topk_prob`, `moe_router_score_function`,
//! `routed_scaling_factor`, `router_num_group` and `router_topk_group`.
//!
//! Source: `configuration_lladamoe.py` and `modeling_lladamoe.py` of the published code.

use llada_tensor::ops::moe::{Router, RouterRule};

use super::fields::Reader;
use super::places::Names;
use super::{Definition, Family};
use crate::config::{Extras, MoeConfig};
use crate::{Error, ModelConfig, Result};

pub(super) const DEFINITION: Definition = Definition {
    family: Family::LladaMoe,
    architecture: "LLaDAMoEModelLM",
    // `llada`, as of the dense model.
    model_type: None,
    read,
    names: NAMES,
    published_mask: Some((157_184, 156_895)),
};

const NAMES: Names = Names {
    root: "",
    anchor: "model.norm.weight",
    parts: &[
        ("wte", "model.embed_tokens"),
        ("attn_norm", "model.layers.N.input_layernorm"),
        ("q_proj", "model.layers.N.self_attn.q_proj"),
        ("k_proj", "model.layers.N.self_attn.k_proj"),
        ("v_proj", "model.layers.N.self_attn.v_proj"),
        ("q_norm", "model.layers.N.self_attn.q_norm"),
        ("k_norm", "model.layers.N.self_attn.k_norm"),
        ("attn_out", "model.layers.N.self_attn.o_proj"),
        ("ff_norm", "model.layers.N.post_attention_layernorm"),
        ("ff_proj", "model.layers.N.mlp.gate_proj"),
        ("up_proj", "model.layers.N.mlp.up_proj"),
        ("ff_out", "model.layers.N.mlp.down_proj"),
        ("experts.ff_proj", "model.layers.N.mlp.experts.E.gate_proj"),
        ("experts.up_proj", "model.layers.N.mlp.experts.E.up_proj"),
        ("experts.ff_out", "model.layers.N.mlp.experts.E.down_proj"),
        // A child of the layer, not of its MLP.
        (
            "shared_expert.ff_proj",
            "model.layers.N.shared_expert.gate_proj",
        ),
        (
            "shared_expert.up_proj",
            "model.layers.N.shared_expert.up_proj",
        ),
        (
            "shared_expert.ff_out",
            "model.layers.N.shared_expert.down_proj",
        ),
        ("router", "model.layers.N.mlp.gate"),
        ("router.bias", "model.layers.N.mlp.gate.expert_bias"),
        ("ln_f", "model.norm"),
        ("ff_out", "lm_head"),
    ],
};

fn read(fields: Reader) -> Result<ModelConfig> {
    fields.expect(&[
        ("clip_qkv", &["null"]),
        ("partial_rotary_factor", &["1", "1.0", "null"]),
    ])?;
    let n_layers = fields.count("num_hidden_layers")?;
    let layers = match fields.counts("moe_layer_freq")? {
        None => vec![true; n_layers],
        Some(layers) if layers.len() == n_layers => layers.into_iter().map(|is| is > 0).collect(),
        Some(layers) => {
            let expected = format!("a number for each of the {n_layers} layers");
            return Err(Error::unsupported(
                "moe_layer_freq",
                format!("{layers:?}"),
                expected,
            ));
        }
    };
    let moe = MoeConfig {
        router: Router {
            n_experts: fields.count("num_experts")?,
            k: fields.count("num_experts_per_tok")?,
            rule: RouterRule::Softmax,
        },
        router_bias: fields.flag("moe_router_enable_expert_bias", false)?,
        expert_width: fields.count("expert_intermediate_size")?,
        shared_width: fields.optional_count("shared_expert_intermediate_size")?,
        layers,
    };
    // Only blocks without experts have it.
    let mlp_hidden_size = match moe.layers.iter().all(|&is_moe| is_moe) {
        true => Some(
            fields
                .optional_count("dense_intermediate_size")?
                .unwrap_or(moe.expert_width),
        ),
        false => Some(fields.count("dense_intermediate_size")?),
    };
    // Of queries, keys, values and of what comes out.
    let attention_bias = fields.flag("attention_bias", false)?;
    let extras = Extras {
        attn_out_bias: attention_bias,
        qk_norm: fields.flag("qk_layernorm", false)?,
        moe: Some(moe),
        ..Extras::default()
    };
    Ok(ModelConfig {
        mlp_hidden_size,
        include_qkv_bias: attention_bias,
        ..fields.common(extras, true)?
    })
}
