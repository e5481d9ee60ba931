//! Tests of the fields of every family.

use std::path::Path;

use llada_tensor::ops::moe::RouterRule;
use serde_json::{Value, json};

use super::*;

pub(super) const ILLADA: &str = r#"{
    "architectures": ["ILLaDAForCausalLM"], "model_type": "illada", "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5, "layer_norm_eps": null, "rope_theta": 5e5, "rope_scaling": null,
    "attention_bias": true, "mlp_bias": false, "tie_word_embeddings": true, "hidden_act": "silu",
    "eos_token_id": 2, "pad_token_id": 1, "mask_token_id": 5
}"#;
pub(super) const DREAM: &str = r#"{
    "architectures": ["DreamModel"], "model_type": "Dream", "hidden_size": 32,
    "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "eos_token_id": 2, "mask_token_id": 5,
    "use_sliding_window": false, "sliding_window": null
}"#;
pub(super) const LLADA_MOE: &str = r#"{
    "architectures": ["LLaDAMoEModelLM"], "model_type": "llada", "hidden_size": 32,
    "dense_intermediate_size": 48, "expert_intermediate_size": 12, "num_experts": 6,
    "num_experts_per_tok": 2, "shared_expert_intermediate_size": 20, "moe_layer_freq": [0, 1],
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 64,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 5e4, "qk_layernorm": true,
    "partial_rotary_factor": 1, "clip_qkv": null, "norm_topk_prob": true, "eos_token_id": 2,
    "mask_token_id": 5
}"#;
pub(super) const LLADA2: &str = r#"{
    "architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "hidden_size": 24,
    "head_dim": 8, "intermediate_size": 40, "moe_intermediate_size": 12, "num_experts": 4,
    "num_experts_per_tok": 2, "num_shared_experts": 2, "n_group": 2, "topk_group": 1,
    "routed_scaling_factor": 2.5, "first_k_dense_replace": 1, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "partial_rotary_factor": 0.5,
    "vocab_size": 64, "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 6e5,
    "use_qk_norm": true, "eos_token_id": [2, 3], "mask_token_id": 5
}"#;

pub(super) fn config(fields: &str) -> Result<ModelConfig> {
    ModelConfig::from_json(fields.as_bytes(), Path::new("config.json"))
}

/// The fields with one of them changed, or without it.
fn with(fields: &str, field: &str, value: Value) -> Result<ModelConfig> {
    let mut all: Value = serde_json::from_str(fields).expect("JSON");
    match value {
        Value::Null => drop(all.as_object_mut().expect("an object").remove(field)),
        value => all[field] = value,
    }
    config(&all.to_string())
}

#[track_caller]
fn check_refused(fields: &str, field: &str, value: Value, parts: &[&str]) {
    let error = with(fields, field, value).expect_err("it is read");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    let message = format!("{error}: {}", source.unwrap_or_default());
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message}");
    }
}

#[test]
fn every_family_is_known_by_its_architecture_and_most_by_their_type() {
    for (fields, family) in [
        (ILLADA, Family::Illada),
        (DREAM, Family::Dream),
        (LLADA_MOE, Family::LladaMoe),
        (LLADA2, Family::Llada2),
    ] {
        assert_eq!(config(fields).expect("valid").family, family);
        if family != Family::LladaMoe {
            let without = with(fields, "architectures", Value::Null).expect("valid");
            assert_eq!(without.family, family);
        }
        let again = config(&config(fields).expect("valid").to_json()).expect("valid");
        assert_eq!(again, config(fields).expect("valid"));
    }
}

#[test]
fn fields_become_those_of_the_common_description() {
    let illada = config(ILLADA).expect("valid");
    assert!(illada.qkv_bias() && illada.extras.attn_out_bias && illada.weight_tying);
    assert_eq!((illada.kv_heads(), illada.mlp_width()), (2, 48));
    let dream = config(DREAM).expect("valid");
    assert!(dream.qkv_bias() && !dream.extras.attn_out_bias && dream.extras.shifts_logits);
    let moe = config(LLADA_MOE).expect("valid");
    assert_eq!((moe.mlp_width(), moe.experts(0)), (48, None));
    let experts = moe.experts(1).expect("experts");
    assert_eq!((experts.expert_width, experts.shared_width), (12, Some(20)));
    assert_eq!(experts.router.rule, RouterRule::Softmax);
    let llada2 = config(LLADA2).expect("valid");
    assert_eq!(llada2.block_size.map(usize::from), Some(32));
    assert_eq!((llada2.head_dim(), llada2.extras.rotary_dim), (8, Some(4)));
    let experts = llada2.experts(1).expect("experts");
    assert_eq!(experts.shared_width, Some(24));
    assert_eq!(llada2.eos_token_id.all(), [2, 3]);
}

#[test]
fn an_expert_capacity_makes_it_2_2() {
    let mut fields: Value = serde_json::from_str(LLADA2).expect("JSON");
    fields["expert_capacity"] = json!(3);
    fields["block_size"] = json!(8);
    let error = config(&fields.to_string()).expect_err("no delete_token_id");
    assert!(
        format!("{error:?}").contains("delete_token_id"),
        "{error:?}"
    );
    fields["delete_token_id"] = json!(60);
    fields["split_token_id"] = json!(61);
    let config = config(&fields.to_string()).expect("valid");
    assert_eq!(config.block_size.map(usize::from), Some(8));
    let edits = config.extras.edit_tokens.expect("2.2 has them");
    assert_eq!((edits.delete, edits.split), (60, 61));
    let rule = config.experts(1).expect("experts").router.rule;
    assert!(
        matches!(rule, RouterRule::Capacity { capacity: 3, .. }),
        "{rule:?}"
    );
}

#[test]
fn a_token_meets_only_its_experts() {
    let config = config(LLADA_MOE).expect("valid");
    let of_experts = 6 * 3 * 12 * 32;
    let active = config.total_parameters() - of_experts + of_experts / 3;
    assert_eq!(config.active_parameters(), active);
    // All positions of two blocks but for what lies behind the last attention.
    let all = config.forward_flops(1, 1);
    let embedding = 64 * 32;
    assert_eq!(all, 2 * (active - embedding) as u64);
}

#[test]
fn other_diffusion_models_are_named_with_the_reason() {
    for (name, what) in [
        ("SDARForCausalLM", "SDAR"),
        ("WeDLMForCausalLM", "WeDLM"),
        ("DiffusionGemmaForCausalLM", "DiffusionGemma"),
        ("Fast_dLLM_QwenForCausalLM", "Fast-dLLM v2"),
        ("NemotronDiffusionForCausalLM", "Nemotron"),
    ] {
        check_refused(
            DREAM,
            "architectures",
            json!([name]),
            &[name, what, "does not run here"],
        );
    }
    check_refused(
        DREAM,
        "architectures",
        json!(["LlamaForCausalLM"]),
        &["LlamaForCausalLM", "LLaDAModelLM", "DreamModel"],
    );
}

#[test]
fn fields_that_mean_another_computation_are_refused_in_the_family_s_words() {
    let check = |fields, field, value, parts: &[&str]| check_refused(fields, field, value, parts);
    check(ILLADA, "layer_norm_eps", json!(1e-5), &["layer_norm_eps"]);
    check(
        ILLADA,
        "rope_scaling",
        json!({"type": "yarn"}),
        &["rope_scaling"],
    );
    check(
        ILLADA,
        "hidden_size",
        Value::Null,
        &["hidden_size", "missing"],
    );
    check(
        ILLADA,
        "num_key_value_heads",
        json!(3),
        &["num_key_value_heads", "num_attention_heads"],
    );
    check(LLADA_MOE, "clip_qkv", json!(8.0), &["clip_qkv"]);
    check(
        LLADA_MOE,
        "moe_layer_freq",
        json!([1]),
        &["moe_layer_freq", "2 layers"],
    );
    check(
        LLADA_MOE,
        "num_experts_per_tok",
        json!(7),
        &["num_experts_per_tok"],
    );
    check(LLADA2, "n_group", json!(3), &["n_group"]);
    check(
        LLADA2,
        "partial_rotary_factor",
        json!(0.4),
        &["partial_rotary_factor"],
    );
    check(LLADA2, "block_size", json!(0), &["block_size"]);
    check(
        DREAM,
        "use_sliding_window",
        json!(true),
        &["use_sliding_window"],
    );
    check(
        DREAM,
        "mask_token_id",
        json!(64),
        &["mask_token_id", "vocab_size"],
    );
}

#[test]
fn the_mask_of_published_models_is_known_where_no_file_says_it() {
    let mut fields: Value = serde_json::from_str(LLADA_MOE).expect("JSON");
    fields
        .as_object_mut()
        .expect("an object")
        .remove("mask_token_id");
    let error = config(&fields.to_string()).expect_err("nothing says it");
    assert!(matches!(error, Error::NoMaskToken { .. }), "{error}");
    fields["vocab_size"] = json!(157_184);
    let config = config(&fields.to_string()).expect("valid");
    assert_eq!(config.mask_token_id, 156_895);
}
