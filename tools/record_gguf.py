"""Records the GGUF files of `crates/llada/tests/gguf`, with the public `gguf` package.

Three tiny random models: `float` as F32, F16 and BF16 (its weights are numbers that all three
hold), `tied` with biases and without a head of its own, both beside the same model in the HF
layout; and two of quantised tensors with the values that the package reads out of them: `quants`
has blocks of 256, and `mixed` is what llama.cpp's quantizer writes where rows are no multiple of
256, once as one file and once as several. Keys, names, the order of rows of `attn_q` and `attn_k` and the vocabulary are
those of llama.cpp's converter; the tokenizer is that of the recorded checkpoints.

    python -m venv venv && venv/bin/pip install gguf numpy safetensors
    venv/bin/python tools/record_gguf.py
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

TESTS = Path(__file__).resolve().parent.parent / "crates/llada/tests"
TOKENIZER = TESTS / "goldens/models/mha-f32"
OUT = TESTS / "gguf"

PARTS = {
    "attn_norm": "attn_norm", "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v",
    "attn_out": "attn_output", "ff_norm": "ffn_norm", "ff_proj": "ffn_gate", "up_proj": "ffn_up",
    "ff_out": "ffn_down",
}  # fmt: skip
ENDS = {"wte": "token_embd", "ln_f": "output_norm", "ff_out": "output"}
FIRST = 8


def config(**fields):
    """A `config.json`; ids are those of the tokenizer unless given."""
    return {
        "architectures": ["LLaDAModelLM"], "model_type": "llada", "max_sequence_length": 128,
        "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "include_bias": False,
        "include_qkv_bias": False, "bias_for_layer_norm": None, "weight_tying": False,
        "mask_token_id": 460, "eos_token_id": 449, "pad_token_id": 449, **fields,
    }  # fmt: skip


def gguf_name(name):
    *layer, part, end = name.removeprefix("model.transformer.").split(".")
    return f"blk.{layer[1]}.{PARTS[part]}.{end}" if layer else f"{ENDS[part]}.{end}"


def parameters(c):
    """Names and shapes in the HF layout."""
    d, f, v = c["d_model"], c["mlp_hidden_size"], c["embedding_size"]
    kv = d // c["n_heads"] * c["n_kv_heads"]
    shapes = {"wte.weight": (v, d), "ln_f.weight": (d,)}
    matrices = {
        "q_proj": (d, d), "k_proj": (kv, d), "v_proj": (kv, d), "attn_out": (d, d),
        "ff_proj": (f, d), "up_proj": (f, d), "ff_out": (d, f),
    }  # fmt: skip
    for layer in range(c["n_layers"]):
        for part, shape in {"attn_norm": (d,), "ff_norm": (d,), **matrices}.items():
            shapes[f"blocks.{layer}.{part}.weight"] = shape
            if c["include_bias"]:
                shapes[f"blocks.{layer}.{part}.bias"] = shape[:1]
    if c["include_bias"]:
        shapes["ln_f.bias"] = (d,)
    if not c["weight_tying"]:
        shapes["ff_out.weight"] = (v, d)
    return {f"model.transformer.{name}": shape for name, shape in shapes.items()}


def heads(c, name):
    """Heads of a tensor whose rows are rotated, else nothing."""
    if ".q_proj." in name:
        return c["n_heads"]
    return c["n_kv_heads"] if ".k_proj." in name else None


def interleaved(x, n_heads):
    """Halves of a head, row by row in turn: the order of llama.cpp."""
    return x.reshape(n_heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def halved(x, n_heads):
    return x.reshape(n_heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def writer(path, c, shift_logits=False, **how):
    """Without the key of the shift if that is none."""
    w = GGUFWriter(path, "llada", **how)
    w.add_context_length(c["max_sequence_length"])
    w.add_embedding_length(c["d_model"])
    w.add_block_count(c["n_layers"])
    w.add_feed_forward_length(c["mlp_hidden_size"])
    w.add_head_count(c["n_heads"])
    w.add_head_count_kv(c["n_kv_heads"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_vocab_size(c["vocab_size"])
    w.add_rope_dimension_count(c["d_model"] // c["n_heads"])
    w.add_causal_attention(False)
    if shift_logits is not None:
        w.add_diffusion_shift_logits(shift_logits)
    w.add_mask_token_id(c["mask_token_id"])
    w.add_eos_token_id(c["eos_token_id"])
    w.add_pad_token_id(c["pad_token_id"])
    return w


def add_vocabulary(w, c, pre):
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text())
    settings = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    tokens = [f"[PAD{i}]" for i in range(c["vocab_size"])]
    types = [TokenType.UNUSED] * len(tokens)
    for token, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = token, TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        special = added["special"]
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if special else TokenType.USER_DEFINED
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    w.add_bos_token_id(tokens.index(settings["bos_token"]))
    w.add_add_bos_token(True)
    w.add_chat_template(settings["chat_template"])


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def record_floats(name, c, types, pre, rng):
    """The HF layout, and a GGUF file of each type; the vocabulary is in the first."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    # Whole 256ths up to 127 have 8 bits: F32, F16 and BF16 hold them exactly.
    draw = lambda shape: (rng.integers(-127, 128, shape) / 256).astype(np.float32)
    values = {key: draw(shape) for key, shape in parameters(c).items()}
    (folder / "config.json").write_text(json.dumps(c, indent=2) + "\n")
    save_file({key: x.astype(np.float16) for key, x in values.items()}, folder / "model.safetensors")
    for index, kind in enumerate(types):
        w = writer(OUT / f"{name}-{kind.name.lower()}.gguf", c)
        if index == 0:
            add_vocabulary(w, c, pre)
        for key, x in values.items():
            x = interleaved(x, heads(c, key)) if heads(c, key) else x
            kept = Type.F32 if x.ndim == 1 else kind
            w.add_tensor(gguf_name(key), quantize(x, kept), raw_dtype=kept)
        finish(w)


def random_blocks(kind, shape, rng):
    """Any bytes but for the scales, which are finite and small."""
    length, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // length, size), dtype=np.uint8)
    scales = {Type.Q4_K: [0, 2], Type.Q6_K: [size - 2], Type.IQ4_NL: [0]}[kind]
    for at in scales:
        scale = rng.uniform(1e-4, 1e-3, blocks.shape[:2]).astype("<f2")
        blocks[..., at : at + 2] = scale[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def fnv(data):
    """FNV-1a of 64 bits."""
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return f"{digest:016x}"


def record_quants(name, c, kinds, rng, **how):
    w = writer(OUT / f"{name}.gguf", c, **how)
    expected = {}
    for key, shape in parameters(c).items():
        kind = kinds[key.split(".")[-2]]
        if kind in (Type.Q4_K, Type.Q6_K, Type.IQ4_NL):
            data = random_blocks(kind, shape, rng)
        else:
            data = quantize(rng.normal(0, 0.1, shape).astype(np.float32), kind)
        w.add_tensor(gguf_name(key), data, raw_dtype=kind)
        values = dequantize(data, kind)
        values = halved(values, heads(c, key)) if heads(c, key) else values
        data = values.astype("<f4").tobytes()
        first = [float(x) for x in values.flat[:FIRST]]
        expected[key] = {"type": kind.name, "fnv1a": fnv(data), "first": first}
    finish(w)
    (OUT / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")


def main():
    rng = np.random.default_rng(7)
    shape = {"d_model": 12, "n_heads": 3, "n_kv_heads": 1, "n_layers": 2, "mlp_hidden_size": 32}
    c = config(vocab_size=480, embedding_size=480, **shape)
    record_floats("float", c, [Type.F32, Type.F16, Type.BF16], "llama-bpe", rng)
    shape = {"d_model": 16, "n_heads": 4, "n_kv_heads": 2, "n_layers": 1, "mlp_hidden_size": 32}
    bias = {"include_bias": True, "weight_tying": True}
    c = config(vocab_size=480, embedding_size=488, **shape, **bias)
    record_floats("tied", c, [Type.F32], "bailingmoe", rng)
    shape = {"n_heads": 4, "n_kv_heads": 1, "n_layers": 1, "mlp_hidden_size": 32}
    ids = {"mask_token_id": 5, "eos_token_id": 1, "pad_token_id": 1}
    norms = {"ln_f": Type.F32, "attn_norm": Type.F32, "ff_norm": Type.F32}
    kinds = {
        "wte": Type.Q8_0, "q_proj": Type.Q4_K, "k_proj": Type.Q8_0, "v_proj": Type.Q6_K,
        "attn_out": Type.Q4_0, "ff_proj": Type.Q6_K, "up_proj": Type.Q4_K, "ff_out": Type.Q4_0,
    }  # fmt: skip
    c = config(d_model=256, vocab_size=32, embedding_size=32, **shape, **ids)
    record_quants("quants", c, norms | kinds, rng)
    kinds = {
        "wte": Type.Q5_0, "q_proj": Type.Q4_1, "k_proj": Type.IQ4_NL, "v_proj": Type.Q8_0,
        "attn_out": Type.Q5_1, "ff_proj": Type.MXFP4, "up_proj": Type.Q4_0, "ff_out": Type.F16,
    }  # fmt: skip
    # Rows of 40 numbers of the MLP are no multiple of 32.
    c = config(d_model=32, vocab_size=32, embedding_size=32, **shape | {"mlp_hidden_size": 40}, **ids)
    for how in {}, {"split_max_tensors": 5}:
        rng = np.random.default_rng(8)
        record_quants("mixed", c, norms | kinds, rng, shift_logits=None, **how)


if __name__ == "__main__":
    main()
