"""Rounds the tensors of a safetensors file from f32 to bf16 (to nearest, ties to even).

python tools/bf16_adapter.py RUN_DIR/adapter/adapter_model.safetensors OUT.safetensors
(numpy; `llada sft` writes adapters in f32)
"""

import json
import struct
import sys

import numpy as np


def main(source, target):
    data = open(source, "rb").read()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    values, body = data[8 + n :], b""
    for entry in sorted(header.values(), key=lambda entry: entry["data_offsets"]):
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32", entry
        bits = np.frombuffer(values[start:end], "<u4").astype(np.uint64)
        half = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        entry["dtype"], entry["data_offsets"] = "BF16", [len(body), len(body) + len(half)]
        body += half
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + body)


if __name__ == "__main__":
    main(*sys.argv[1:])
