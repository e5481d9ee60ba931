"""Writes a checkpoint in the published layout with random bf16 weights, in shards.

For load times and memory at full size: `python3 tools/random_checkpoint.py OUT --shards 6` writes
LLaDA-8B's shape (16 GB), `--preset 1b` that of the paper's 1B model (3 GB),
`--preset 25m` that of `llada-25m`. Needs numpy. There is
no tokenizer in it: copy any tokenizer.json into the folder and run it with `--prompt-ids`.
"""

import argparse
import json
import pathlib
import struct

import numpy as np

COMMON = {
    "architectures": ["LLaDAModelLM"],
    "model_type": "llada",
    "activation_type": "silu",
    "block_type": "llama",
    "layer_norm_type": "rms",
    "rms_norm_eps": 1e-5,
    "rope": True,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
    "pad_token_id": 126081,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "include_bias": False,
    "include_qkv_bias": False,
    "weight_tying": False,
}
PRESETS = {
    "8b": {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288},
    "25m": {
        "d_model": 384,
        "n_layers": 8,
        "n_heads": 6,
        "n_kv_heads": 6,
        "mlp_hidden_size": 1536,
        "vocab_size": 8192,
        "embedding_size": 8192,
        "mask_token_id": 8064,
        "eos_token_id": 7809,
        "pad_token_id": 7809,
    },
    "1b": {"d_model": 2048, "n_layers": 22, "n_heads": 32, "n_kv_heads": 4, "mlp_hidden_size": 5634},
}


def shapes(config):
    d, f, v = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    kv = d // config["n_heads"] * config["n_kv_heads"]
    yield "model.transformer.wte.weight", (v, d)
    for layer in range(config["n_layers"]):
        name = f"model.transformer.blocks.{layer}."
        yield name + "attn_norm.weight", (d,)
        yield name + "q_proj.weight", (d, d)
        yield name + "k_proj.weight", (kv, d)
        yield name + "v_proj.weight", (kv, d)
        yield name + "attn_out.weight", (d, d)
        yield name + "ff_norm.weight", (d,)
        yield name + "ff_proj.weight", (f, d)
        yield name + "up_proj.weight", (f, d)
        yield name + "ff_out.weight", (d, f)
    yield "model.transformer.ln_f.weight", (d,)
    yield "model.transformer.ff_out.weight", (v, d)


def bf16(values):
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--preset", choices=PRESETS, default="8b")
    parser.add_argument("--shards", type=int, default=6)
    args = parser.parse_args()
    config = {**COMMON, **PRESETS[args.preset]}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(config, indent=2))

    rng = np.random.default_rng(0)
    # Drawn once and laid out from random places: fast, and no two tensors are alike.
    draws = bf16(rng.standard_normal(1 << 24) * 0.02)
    one = bf16(np.ones(config["d_model"]))
    all_shapes = list(shapes(config))
    total = sum(2 * int(np.prod(shape)) for _, shape in all_shapes)
    shards, size = [[]], 0
    for name, shape in all_shapes:
        if size > total / args.shards * len(shards):
            shards.append([])
        shards[-1].append((name, shape))
        size += 2 * int(np.prod(shape))

    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        file_name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in tensors:
            begin, end = end, end + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            weight_map[name] = file_name
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(args.out / file_name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, shape in tensors:
                if len(shape) == 1:
                    file.write(one.tobytes())
                    continue
                left = int(np.prod(shape))
                while left:
                    start = int(rng.integers(len(draws) // 2))
                    part = draws[start : start + left]
                    file.write(part.tobytes())
                    left -= len(part)
        print(file_name, f"{(args.out / file_name).stat().st_size / 1e9:.2f} GB", flush=True)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (args.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main()
