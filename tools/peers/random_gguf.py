"""Writes a GGUF file of the architecture `llada`, or of a mixture of experts `llada-moe`, with random
weights, for the speed of llama.cpp; `--arch llama` for a fork that knows nothing of `llada`.

    python tools/peers/random_gguf.py OUT.gguf --preset llada-8b --type Q8_0

All matrices have the type, embedding and head too. The vocabulary is that of bytes and of made-up
tokens up to the size of the shape; the chat template repeats what it is given. A row of a
quantised tensor has whole blocks of 32 or 256, so a width of the MLP that has not is cut (5634 to
5632): llama.cpp would keep such a tensor in another type. Blocks of the K types have random integers
and factors. Needs numpy and gguf.
"""

import argparse
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from gguf.quants import quant_shape_to_byte_shape, quantize

from shapes import (
    MAX_SEQUENCE_LENGTH,
    MOE_PRESETS,
    PRESETS,
    RMS_NORM_EPS,
    ROPE_THETA,
    special_ids,
)

TYPES = ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "BF16", "F16", "F32")
# Where the scales of a block are, as halves, and what they are.
K_SCALES = {
    "Q4_K": {0: 1e-4, 1: 7.5e-4},
    "Q5_K": {0: 5e-5, 1: 7.5e-4},
    "Q6_K": {104: 1.5e-5},
}


def tensors(shape):
    """Names and shapes."""
    d, f, v = shape["d_model"], shape["mlp_hidden_size"], shape["vocab_size"]
    kv = d // shape["n_heads"] * shape["n_kv_heads"]
    yield "token_embd.weight", (v, d)
    n_experts = shape.get("n_experts")
    for layer in range(shape["n_layers"]):
        parts = {
            "attn_norm": (d,), "attn_q": (d, d), "attn_k": (kv, d), "attn_v": (kv, d),
            "attn_output": (d, d), "ffn_norm": (d,),
        }  # fmt: skip
        if n_experts:
            head = d // shape["n_heads"]
            parts |= {
                "attn_q_norm": (head,), "attn_k_norm": (head,), "ffn_gate_inp": (n_experts, d),
                "ffn_gate_exps": (n_experts, f, d), "ffn_up_exps": (n_experts, f, d),
                "ffn_down_exps": (n_experts, d, f),
            }  # fmt: skip
        else:
            parts |= {"ffn_gate": (f, d), "ffn_up": (f, d), "ffn_down": (d, f)}
        for part, size in parts.items():
            yield f"blk.{layer}.{part}.weight", size
    yield "output_norm.weight", (d,)
    yield "output.weight", (v, d)


def byte_tokens():
    """The characters that stand for bytes in a GPT-2 vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def add_vocabulary(w, shape):
    mask, eos = special_ids(shape)
    tokens = byte_tokens()
    space = chr(256 + 32)
    tokens += [f"{space}a"]
    tokens += [f"<token {i}>" for i in range(len(tokens), shape["vocab_size"])]
    types = [TokenType.NORMAL] * len(tokens)
    for i, name in {mask: "<|mdm_mask|>", eos: "<|endoftext|>"}.items():
        tokens[i], types[i] = name, TokenType.CONTROL
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([f"{space} a"])
    w.add_bos_token_id(eos)
    w.add_eos_token_id(eos)
    w.add_pad_token_id(eos)
    w.add_mask_token_id(mask)
    w.add_add_bos_token(False)
    w.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def random_blocks(kind, rng):
    """`[blocks, bytes]`"""
    length, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    n = (1 << 22) // length
    if kind.name not in K_SCALES:
        values = rng.standard_normal((n, length), dtype=np.float32) * np.float32(0.02)
        return quantize(values, kind).view(np.uint8)
    blocks = rng.integers(256, size=(n, n_bytes), dtype=np.uint8)
    for at, scale in K_SCALES[kind.name].items():
        blocks.view(np.float16)[:, at] = scale
    return blocks


def write(path, shape, kind, seed, arch):
    w = GGUFWriter(path, arch or ("llada-moe" if "n_experts" in shape else "llada"))
    if "n_experts" in shape:
        w.add_expert_count(shape["n_experts"])
        w.add_expert_used_count(shape["experts_per_token"])
        w.add_expert_feed_forward_length(shape["mlp_hidden_size"])
    w.add_context_length(MAX_SEQUENCE_LENGTH)
    w.add_embedding_length(shape["d_model"])
    w.add_block_count(shape["n_layers"])
    w.add_feed_forward_length(shape["mlp_hidden_size"])
    w.add_head_count(shape["n_heads"])
    w.add_head_count_kv(shape["n_kv_heads"])
    w.add_rope_freq_base(ROPE_THETA)
    w.add_rope_dimension_count(shape["d_model"] // shape["n_heads"])
    w.add_layer_norm_rms_eps(RMS_NORM_EPS)
    w.add_vocab_size(shape["vocab_size"])
    w.add_causal_attention(False)
    w.add_diffusion_shift_logits(False)
    w.add_file_type(file_type(kind))
    add_vocabulary(w, shape)
    # Blocks are drawn once and laid out from random places: fast, and no two tensors are alike.
    rng = np.random.default_rng(seed)
    draws = random_blocks(kind, rng)
    sizes = dict(tensors(shape))
    for name, size in sizes.items():
        if is_f32(name, size):
            w.add_tensor_info(name, size, np.dtype(np.float32), 4 * int(np.prod(size)))
            continue
        n_bytes = int(np.prod(quant_shape_to_byte_shape(size, kind)))
        if kind in (Type.F16, Type.F32):
            dtype = np.dtype(np.float16 if kind == Type.F16 else np.float32)
            w.add_tensor_info(name, size, dtype, n_bytes)
        else:
            bytes_shape = quant_shape_to_byte_shape(size, kind)
            w.add_tensor_info(name, bytes_shape, np.dtype(np.uint8), n_bytes, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for name, size in sizes.items():
        if len(size) == 1:
            w.write_tensor_data(np.ones(size, np.float32))
        elif is_f32(name, size):
            w.write_tensor_data(rng.standard_normal(size, dtype=np.float32) * np.float32(0.02))
        else:
            w.write_tensor_data(laid_out(draws, int(np.prod(quant_shape_to_byte_shape(size, kind))), rng))
    w.close()


def file_type(kind):
    names = {Type.F32: "ALL_F32", Type.Q4_K: "MOSTLY_Q4_K_M", Type.Q5_K: "MOSTLY_Q5_K_M"}
    return gguf.LlamaFileType[names.get(kind, f"MOSTLY_{kind.name}")]


def is_f32(name, size):
    """Norms, and routers, which the converter of llama.cpp keeps."""
    return len(size) == 1 or ".ffn_gate_inp." in name


def laid_out(draws, n_bytes, rng):
    out, at = np.empty(n_bytes, np.uint8), 0
    while at < n_bytes:
        part = draws[rng.integers(len(draws) // 2) :].reshape(-1)[: n_bytes - at]
        out[at : at + len(part)] = part
        at += len(part)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--preset", choices=PRESETS | MOE_PRESETS, default="llada-1b")
    p.add_argument("--type", choices=TYPES, default="Q8_0")
    p.add_argument("--arch", help="in place of llada")
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    shape, kind = dict((PRESETS | MOE_PRESETS)[args.preset]), Type[args.type]
    if gguf.GGML_QUANT_SIZES[kind][0] > 1:
        shape["mlp_hidden_size"] -= shape["mlp_hidden_size"] % gguf.GGML_QUANT_SIZES[kind][0]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write(args.out, shape, kind, args.seed, args.arch)
    print(args.out, f"{args.out.stat().st_size / 1e9:.2f} GB, mlp {shape['mlp_hidden_size']}")


if __name__ == "__main__":
    main()
