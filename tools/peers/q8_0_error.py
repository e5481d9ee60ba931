"""Logit errors of the embedded poem model in llama.cpp's Q8_0 arithmetic, and in that of `llada`.

Q8_0 rounds weights and activations in blocks of 32, each with its own scale; `llada --dtype int8`
rotates blocks of 64 and has a scale for each row of a weight and each token. Both are simulated in
f32 on every other token of held-out poems, masked:
`python tools/peers/q8_0_error.py data/poems/heldout.txt` (needs torch and safetensors).
"""

import copy
import json
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import transformer

ASSETS = pathlib.Path(__file__).parents[2] / "assets" / "poems"
POEMS = 20


def poem_model():
    config = json.loads((ASSETS / "config.json").read_text())
    transformer.RMS_NORM_EPS, transformer.ROPE_THETA = config["rms_norm_eps"], config["rope_theta"]
    shape = {**config, "n_kv_heads": config["n_heads"]}
    weights = load_file(ASSETS / "model.safetensors")
    weights = {k.removeprefix("model.transformer."): v.float() for k, v in weights.items()}
    weights["ff_out.weight"] = weights["wte.weight"]
    model = transformer.Llada(shape).float().eval().requires_grad_(False)
    model.load_state_dict(weights)
    return model


def texts(path):
    vocabulary = json.loads((ASSETS / "tokenizer.json").read_text())["model"]["vocab"]
    lines = [line.strip() for line in open(path) if line.strip()]
    for line in lines[:: max(1, len(lines) // POEMS)][:POEMS]:
        ids = [vocabulary.get(character, 2) for character in line][:255]
        yield torch.tensor([ids + [1]])


def logits(model, path):
    rows = []
    for ids in texts(path):
        ids[:, ::2] = 0
        rows.append(model(ids)[0, ::2])
    return torch.cat(rows)


def rounded(x, block):
    """Rounds to 8 bits with a scale for each block of the last axis, or for all of it."""
    y = x.unflatten(-1, (-1, block)) if block else x
    scale = y.abs().amax(-1, keepdim=True) / 127
    return (torch.round(y / scale.clamp_min(1e-30)) * scale).reshape(x.shape)


def hadamard(n=64):
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat((torch.cat((h, h), 1), torch.cat((h, -h), 1)))
    return h / n**0.5


def quantized(model, block, rotate):
    h = hadamard()
    turn = (lambda x: (x.unflatten(-1, (-1, 64)) @ h).flatten(-2)) if rotate else (lambda x: x)
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            weight = rounded(turn(layer.weight.data), block)
            layer.forward = lambda x, w=weight: F.linear(rounded(turn(x), block), w)
    return model


def main():
    path, model = sys.argv[1], poem_model()
    exact = logits(model, path)
    for name, block, rotate in [
        ("Q8_0, blocks of 32", 32, False),
        ("rows and tokens, rotated (llada int8)", None, True),
        ("rows and tokens, not rotated", None, False),
    ]:
        y = logits(quantized(model, block, rotate), path)
        same = (y.argmax(-1) == exact.argmax(-1)).float().mean()
        print(f"{name:40} mean error {(y - exact).abs().mean():.4f}, top-1 {same:.3f}")


if __name__ == "__main__":
    main()
