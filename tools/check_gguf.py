"""Checks a GGUF file that `llada convert` has made of a folder, with the public `gguf` package.

Each tensor is there, of the type that llama.cpp's converter gives it, and its bytes are those that
`gguf.quants.quantize` makes of the folder's values; the keys are those of `conversion/llada.py`.

    python -m venv venv && venv/bin/pip install gguf==0.19.0 numpy safetensors
    llada convert DIR out.gguf --dtype q8_0
    venv/bin/python tools/check_gguf.py DIR out.gguf q8_0
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader
from gguf.quants import quantize

from record_gguf import gguf_name, heads, interleaved

KEYS = {
    "general.architecture": "llada",
    "diffusion.shift_logits": False,
    "llada.attention.causal": False,
}
BY_CONFIG = {
    "llada.context_length": "max_sequence_length", "llada.embedding_length": "d_model",
    "llada.block_count": "n_layers", "llada.attention.head_count": "n_heads",
    "llada.vocab_size": "vocab_size", "tokenizer.ggml.mask_token_id": "mask_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
}  # fmt: skip


def tensors(folder):
    """Names and values in f32; NumPy has no bf16, so that safetensors' own reader does not do."""
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            part = data[start + begin : start + end]
            if entry["dtype"] == "BF16":
                values = (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(part, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
            yield name, values.astype(np.float32).reshape(entry["shape"])


def expected_type(asked, shape):
    if len(shape) < 2:
        return Type.F32
    is_integer = asked in (Type.Q8_0, Type.Q4_0)
    return Type.F16 if is_integer and shape[1] % 32 else asked


def main(folder, path, dtype):
    folder, asked = Path(folder), Type[dtype.upper()]
    config = json.loads((folder / "config.json").read_text())
    config["n_kv_heads"] = config.get("n_kv_heads") or config["n_heads"]
    reader = GGUFReader(path)
    keys = KEYS | {key: config[field] for key, field in BY_CONFIG.items()}
    for key, value in keys.items():
        assert reader.get_field(key).contents() == value, key
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name, values in tensors(folder):
        tensor = found.pop(gguf_name(name))
        n_heads = heads(config, name)
        values = interleaved(values, n_heads) if n_heads else values
        kind = expected_type(asked, values.shape)
        assert tensor.tensor_type == kind, (name, tensor.tensor_type, kind)
        assert list(tensor.shape[::-1]) == list(values.shape), name
        data = quantize(np.ascontiguousarray(values), kind)
        assert tensor.data.tobytes() == data.tobytes(), name
    assert not found, found.keys()
    types = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    print(f"{path}: {len(reader.tensors)} tensors ({', '.join(types)}) are bit-equal")


if __name__ == "__main__":
    main(*sys.argv[1:])
