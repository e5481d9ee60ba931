"""The shapes that speed is compared at, with the field names of `config.json`."""

PRESETS = {
    "llada-25m": {
        "d_model": 384, "n_layers": 8, "n_heads": 6, "n_kv_heads": 6, "mlp_hidden_size": 1536,
        "vocab_size": 8192,
    },
    "llada-100m": {
        "d_model": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "mlp_hidden_size": 2048,
        "vocab_size": 16384,
    },
    "llada-1b": {
        "d_model": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "mlp_hidden_size": 5634,
        "vocab_size": 126464,
    },
    "llada-8b": {
        "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288,
        "vocab_size": 126464,
    },
}  # fmt: skip
# A mixture of experts, LLaDA-MoE: `mlp_hidden_size` is the width of an expert.
MOE_PRESETS = {
    "llada-moe-7b-a1b": {
        "d_model": 2048, "n_layers": 16, "n_heads": 16, "n_kv_heads": 16, "mlp_hidden_size": 1024,
        "n_experts": 64, "experts_per_token": 8, "vocab_size": 157184,
    },
}  # fmt: skip
# Training steps on a GPU: preset, sequences, tokens of each, and whether activations are computed
# again in the backward pass.
TRAINING = (
    ("llada-25m", 16, 128, False),
    ("llada-25m", 16, 1024, False),
    ("llada-100m", 16, 1024, False),
    ("llada-1b", 4, 1024, False),
    ("llada-1b", 16, 1024, True),
)
ROPE_THETA = 500000.0
RMS_NORM_EPS = 1e-5
MAX_SEQUENCE_LENGTH = 4096


def special_ids(shape):
    """Mask and end of a document: at the distances from the end of the published vocabulary."""
    return shape["vocab_size"] - 128, shape["vocab_size"] - 383
