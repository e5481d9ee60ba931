//! The configurations of the paper's table 5 (arXiv 2502.09992, appendix B.2), and small ones
//! that speed is compared at.

use crate::ModelConfig;

/// Names of the presets.
pub const PRESETS: [&str; 7] = [
    "llada-1b",
    "llada-8b",
    "arm-1b",
    "arm-7b",
    "llama3-8b",
    "llada-25m",
    "llada-100m",
];

/// The configuration of a preset.
#[must_use]
pub fn preset(name: &str) -> Option<ModelConfig> {
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
    let json = serde_json::json!({
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
