"""Writes a GGUF file with the shapes and types of a large quantised LLaDA and random blocks, to
measure memory and times of loading: nothing of what it computes means anything.

Types are those that llama.cpp's quantizer writes for Q4_K_M, fallbacks included, or one for all
matrices. The vocabulary has as many tokens as that of LLaDA, and one merge.

    python -m venv venv && venv/bin/pip install gguf==0.19.0 numpy safetensors
    venv/bin/python tools/quantizer_gguf.py out.gguf [Q4_K_M|Q8_0|Q6_K|...] [MLP_WIDTH]
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from record_gguf import config, gguf_name, parameters, writer

FALLBACKS = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
# Where the 16-bit scales of a block lie.
SCALES = {Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.Q2_K: [80, 82], Type.Q3_K: [108]}


def type_of(name, shape, mixture, n_layers):
    if len(shape) < 2:
        return Type.F32
    kind = Type.Q4_K
    if mixture != "Q4_K_M":
        kind = Type[mixture]
    elif name == "output.weight":
        kind = Type.Q6_K
    elif "attn_v" in name or "ffn_down" in name:
        layer = int(name.split(".")[1])
        last = layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2
        kind = Type.Q6_K if last else kind
    if shape[1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = FALLBACKS.get(kind, kind)
    return Type.F16 if shape[1] % 32 else kind


def random_rows(kind, shape, rng):
    length, size = gguf.GGML_QUANT_SIZES[kind]
    if kind == Type.F32:
        return np.ones(shape, np.float32)
    if kind == Type.F16:
        return (rng.random(shape, dtype=np.float32) * 0.04 - 0.02).astype(np.float16)
    n = shape[0] * shape[1] // length
    blocks = np.frombuffer(rng.bytes(n * size), np.uint8).reshape(n, size).copy()
    for at in SCALES.get(kind, [0]):
        scale = rng.random(n, dtype=np.float32) * 1e-4
        blocks[:, at : at + 2] = scale.astype("<f2")[:, None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def main(path, mixture="Q4_K_M", mlp="5634"):
    shape = {"d_model": 2048, "n_heads": 32, "n_kv_heads": 4, "n_layers": 22, "mlp_hidden_size": int(mlp)}
    ids = {"mask_token_id": 126336, "eos_token_id": 126081, "pad_token_id": 126081}
    c = config(vocab_size=126464, embedding_size=126464, max_sequence_length=4096, **shape, **ids)
    w = writer(path, c)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("bailingmoe")
    tokens = ["t", "1", "t1", *(f"x{i}" for i in range(3, c["vocab_size"]))]
    w.add_token_list(tokens)
    w.add_token_types([1] * len(tokens))
    w.add_token_merges(["t 1"])
    names = {gguf_name(key): shape for key, shape in parameters(c).items()}
    kinds = {name: type_of(name, shape, mixture, c["n_layers"]) for name, shape in names.items()}
    for name, shape in names.items():
        length, size = gguf.GGML_QUANT_SIZES[kinds[name]]
        n_bytes = int(np.prod(shape)) // length * size
        w.add_tensor_info(name, shape, np.dtype(np.float32), n_bytes, raw_dtype=kinds[name])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    rng = np.random.default_rng(1)
    for name, shape in names.items():
        w.write_tensor_data(random_rows(kinds[name], shape, rng))
    w.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
