"""Records what the reader and the writer of GGUF blocks are made of and tested against, with the
public `gguf` package (0.19).

Into `crates/llada-model/src/gguf/blocks`: `grids.bin`, the points of the grids of the IQ types; and
`tests.json`, for each type that the package can read, blocks of random bytes with the values that
it gives (the first ones, and a digest of all), and for those that we write, rows with its codes.

    python -m venv venv && venv/bin/pip install gguf==0.19.0 numpy
    venv/bin/python tools/record_gguf_blocks.py
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

from record_gguf import fnv

OUT = Path(__file__).resolve().parent.parent / "crates/llada-model/src/gguf/blocks"
# The order of `grids.rs`.
GRIDS = [quants.IQ2_XXS, quants.IQ2_XS, quants.IQ2_S, quants.IQ3_XXS, quants.IQ3_S, quants.IQ1_S]
BLOCKS, FIRST = 6, 4


def can_read(kind):
    return kind in quants._type_traits or kind in (Type.F32, Type.F16)


def record_blocks(kind, rng):
    """Random blocks whose values are all finite, and the smallest and largest bytes."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    random = rng.integers(0, 256, (64, size), dtype=np.uint8)
    blocks = np.concatenate([np.zeros((1, size), np.uint8), random])
    with np.errstate(all="ignore"):
        values = quants.dequantize(blocks, kind)
    finite = np.isfinite(values).all(axis=1)
    blocks, values = blocks[finite][:BLOCKS], values[finite][:BLOCKS]
    assert len(blocks) == BLOCKS and values.dtype == np.float32
    first = [[float(x) for x in row[:FIRST]] for row in values]
    return {
        "number": int(kind), "blocks": [bytes(block).hex() for block in blocks],
        "first": first, "fnv1a": fnv(values.astype("<f4").tobytes()),
    }  # fmt: skip


def rows_to_write(rng):
    """64 values a row: of several sizes, ties of rounding and of the largest value, zeros."""
    rows = [rng.normal(0, size, 64) for size in (1e-8, 1e-5, 0.02, 1.0, 300.0)]
    rows += [np.zeros(64), np.repeat([-1.0, 1.0], 32), np.tile([1.0, -1.0], 32)]
    rows += [np.arange(64) - 32.0, (np.arange(64) % 17 - 8) / 2, np.arange(64) * -0.25]
    return np.array(rows, dtype=np.float32)


def main():
    rng = np.random.default_rng(11)
    (OUT / "grids.bin").write_bytes(b"".join(bytes.fromhex(g.grid_hex.decode()) for g in GRIDS))
    read = {kind.name: record_blocks(kind, rng) for kind in Type if can_read(kind)}
    rows = rows_to_write(rng)
    written = {}
    for kind in (Type.Q8_0, Type.Q4_0, Type.F16, Type.BF16):
        data = quants.quantize(rows, kind)
        written[kind.name] = [row.tobytes().hex() for row in data]
    rows = [row.tobytes().hex() for row in rows.astype("<f4")]
    result = {"package": "gguf 0.19.0", "read": read, "rows": rows, "written": written}
    (OUT / "tests.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
