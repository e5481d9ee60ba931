#!/usr/bin/env python3
"""Records adapters that PEFT saves for a tiny model in LLaDA's layout, with the weights that PEFT
merges them into: crates/llada-model/tests/goldens/adapters.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 peft==0.21.2 safetensors numpy
    venv/bin/python tools/record_adapters.py crates/llada-model/tests/goldens/adapters

`base.safetensors` has the base model, NAME/ what PEFT saves, NAME.safetensors the merged weights
that differ from the base.
"""

import json
import pathlib
import shutil
import sys

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

D, K, F, V, LAYERS = 8, 4, 12, 11, 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm = nn.LayerNorm(D)
        self.q_proj = nn.Linear(D, D)
        self.k_proj = nn.Linear(D, K)
        self.v_proj = nn.Linear(D, K)
        self.attn_out = nn.Linear(D, D)
        self.ff_norm = nn.LayerNorm(D)
        self.ff_proj = nn.Linear(D, F)
        self.up_proj = nn.Linear(D, F)
        self.ff_out = nn.Linear(F, D)


class Inner(nn.Module):
    """Modules and their names as in LLaDAModel of the reference, with biases everywhere."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(V, D),
                "blocks": nn.ModuleList(Block() for _ in range(LAYERS)),
                "ln_f": nn.LayerNorm(D),
                "ff_out": nn.Linear(D, V),
            }
        )


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Inner()

    def forward(self, ids):
        x = self.model.transformer["wte"](ids)
        for block in self.model.transformer["blocks"]:
            q, k, v = block.q_proj(x), block.k_proj(x), block.v_proj(x)
            x = x + block.attn_out(q + torch.cat([k, v], -1))
            x = x + block.ff_out(block.ff_proj(x) * block.up_proj(x))
        return self.model.transformer["ff_out"](self.model.transformer["ln_f"](x))


BLOCKS = r".*\.blocks\.\d+\.(q_proj|ff_out)"
CASES = {
    "plain": dict(r=2, lora_alpha=6, target_modules=BLOCKS),
    "rslora": dict(r=4, lora_alpha=6, use_rslora=True, target_modules=["v_proj"]),
    # The first key that matches counts; a key may be the end of a name or a pattern.
    "patterns": dict(
        r=2,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj", "k_proj"],
        rank_pattern={r"blocks\.1\.q_proj": 3, "q_proj": 4, "^model.transformer.blocks.0.up_proj": 1},
        alpha_pattern={r"blocks\.[01]\.up_proj": 5, "q_proj": 7.5},
    ),
    "bias-all": dict(r=2, lora_alpha=4, bias="all", target_modules=["attn_out"]),
    "bias-lora-only": dict(r=2, lora_alpha=4, bias="lora_only", target_modules=["k_proj"]),
    "lora-bias": dict(r=2, lora_alpha=4, lora_bias=True, target_modules=["up_proj"]),
    # Both take the head and the modules of that name in the blocks.
    "ff-out": dict(r=2, lora_alpha=4, target_modules=["ff_out"]),
    "saved": dict(r=2, lora_alpha=4, target_modules=["q_proj"], modules_to_save=["ff_out", "wte"]),
    "embedding": dict(r=3, lora_alpha=4, target_modules=["wte", "ff_proj"]),
    "tokens": dict(
        r=2, lora_alpha=4, target_modules=["q_proj"], trainable_token_indices={"wte": [9, 2, 5]}
    ),
    "fan-in": dict(r=2, lora_alpha=4, fan_in_fan_out=True, target_modules=["ff_proj", "wte"]),
    "gaussian": dict(r=2, lora_alpha=4, init_lora_weights="gaussian", target_modules=["q_proj"]),
    "orthogonal": dict(r=2, lora_alpha=4, init_lora_weights="orthogonal", target_modules=["v_proj"]),
}


def base() -> Model:
    torch.manual_seed(1)
    model = Model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def weights(model: nn.Module) -> dict:
    return {name: x.detach().clone().contiguous() for name, x in model.state_dict().items()}


def record(name: str, config: dict, out: pathlib.Path, scale: float = 1.0) -> None:
    """One adapter: made, filled with random values as if trained, saved, loaded again, merged."""
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    model = get_peft_model(base(), LoraConfig(**config))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # A fresh base, as for who downloads the adapter.
    merged = PeftModel.from_pretrained(base(), folder).merge_and_unload()
    before, after = weights(base()), weights(merged)
    assert before.keys() == after.keys(), (name, before.keys() ^ after.keys())
    changed = {key: x for key, x in after.items() if not torch.equal(x, before[key])}
    save_file(changed, out / f"{name}.safetensors", provenance(name))
    print(name, sorted(changed), sorted(k for k in json.loads(header(folder)) if k[0] != "_"))


def header(folder: pathlib.Path) -> bytes:
    data = (folder / "adapter_model.safetensors").read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "little")]


def provenance(name: str) -> dict:
    return {
        "script": "tools/record_adapters.py",
        "case": name,
        "peft": peft.__version__,
        "torch": torch.__version__,
    }


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    save_file(weights(base()), out / "base.safetensors", provenance("base"))
    for name, config in CASES.items():
        record(name, config, out)


main()
