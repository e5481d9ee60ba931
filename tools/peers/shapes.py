"""The shapes that speed is compared at, with the field names of `config.json`."""

PRESETS = {
    "llada-25m": {
        "d_model": 384, "n_layers": 8, "n_heads": 6, "n_kv_heads": 6, "mlp_hidden_size": 1536,
        "vocab_size": 8192,
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
ROPE_THETA = 500000.0
RMS_NORM_EPS = 1e-5
MAX_SEQUENCE_LENGTH = 4096


def special_ids(shape):
    """Mask and end of a document: at the distances from the end of the published vocabulary."""
    return shape["vocab_size"] - 128, shape["vocab_size"] - 383
