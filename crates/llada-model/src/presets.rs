//! The configurations of the paper's table 5 (arXiv 2502.09992, appendix B.2), those of published
//! models of other families, and small ones that speed is compared at.

use std::path::Path;

use serde_json::{Value, json};

use crate::ModelConfig;

/// Names of the presets.
pub const PRESETS: [&str; 11] = [
    "llada-1b",
    "llada-8b",
    "arm-1b",
    "arm-7b",
    "llama3-8b",
    "llada-25m",
    "llada-100m",
    "illada-8b",
    "llada-moe-7b-a1b",
    "llada2-mini",
    "dream-7b",
];

/// The `config.json` of a published model of another family.
fn published(name: &str) -> Option<Value> {
    Some(match name {
        // The value of `rope_theta` is LLaDA's: it changes no speed.
        "illada-8b" => json!({
            "architectures": ["ILLaDAForCausalLM"],
            "model_type": "illada",
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 155_136,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": true,
            "mask_token_id": 5,
            "eos_token_id": 2,
            "pad_token_id": 1,
        }),
        "llada-moe-7b-a1b" => json!({
            "architectures": ["LLaDAMoEModelLM"],
            "model_type": "llada",
            "hidden_size": 2048,
            "dense_intermediate_size": 8192,
            "expert_intermediate_size": 1024,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 157_184,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 50_000.0,
            "qk_layernorm": true,
            "partial_rotary_factor": 1,
            "tie_word_embeddings": false,
            "mask_token_id": 156_895,
            "eos_token_id": 156_892,
            "pad_token_id": 156_892,
        }),
        "llada2-mini" => json!({
            "architectures": ["LLaDA2MoeModelLM"],
            "model_type": "llada2_moe",
            "hidden_size": 2048,
            "head_dim": 128,
            "intermediate_size": 5120,
            "moe_intermediate_size": 512,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "num_shared_experts": 1,
            "n_group": 8,
            "topk_group": 4,
            "routed_scaling_factor": 2.5,
            "first_k_dense_replace": 1,
            "num_hidden_layers": 20,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "partial_rotary_factor": 0.5,
            "vocab_size": 157_184,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 600_000.0,
            "use_qkv_bias": false,
            "use_bias": false,
            "use_qk_norm": true,
            "tie_word_embeddings": false,
            "mask_token_id": 156_895,
            "eos_token_id": 156_892,
            "pad_token_id": 156_892,
        }),
        "dream-7b" => json!({
            "architectures": ["DreamModel"],
            "model_type": "Dream",
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "use_sliding_window": false,
            "tie_word_embeddings": false,
            "mask_token_id": 151_666,
            "eos_token_id": 151_643,
            "pad_token_id": 151_643,
        }),
        _ => return None,
    })
}

/// The configuration of a preset.
#[must_use]
pub fn preset(name: &str) -> Option<ModelConfig> {
    if let Some(json) = published(name) {
        return ModelConfig::from_json(json.to_string().as_bytes(), Path::new(name)).ok();
    }
    // Layers, width, heads, key heads, MLP width, vocabulary, causal.
    let (n_layers, d_model, n_heads, kv_heads, mlp_width, vocab_size, causal) = match name {
        "llada-1b" => (22, 2048, 32, 4, 5634, 126_464, false),
        "llada-8b" => (32, 4096, 32, 32, 12_288, 126_464, false),
        "arm-1b" => (22, 2048, 32, 4, 5634, 126_464, true),
        "arm-7b" => (28, 4096, 32, 8, 13_440, 126_464, true),
        "llama3-8b" => (32, 4096, 32, 8, 14_336, 128_000, true),
        "llada-25m" => (8, 384, 6, 6, 1536, 8192, false),
        "llada-100m" => (12, 768, 12, 12, 2048, 16_384, false),
        _ => return None,
    };
    let json = json!({
        "d_model": d_model,
        "n_heads": n_heads,
        "n_kv_heads": kv_heads,
        "n_layers": n_layers,
        "mlp_hidden_size": mlp_width,
        "vocab_size": vocab_size,
        "embedding_size": vocab_size,
        "max_sequence_length": 4096,
        "rope_theta": 500_000.0,
        // As far from the end of the vocabulary as those of the published tokenizer.
        "mask_token_id": vocab_size - 128,
        "eos_token_id": vocab_size - 383,
        "causal": causal,
    });
    serde_json::from_value(json).ok()
}
