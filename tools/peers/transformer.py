"""A LLaDA Transformer in PyTorch for the measurements of inference: random weights of any shape.

Blocks are those of the published checkpoints (RMSNorm, RoPE on halves in f32, grouped queries,
SwiGLU, a head of its own); attention is PyTorch's fused one and sees all positions.
"""

import json
import os
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from shapes import RMS_NORM_EPS, ROPE_THETA

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Block(nn.Module):
    """Names are those of the published checkpoint."""

    def __init__(self, shape):
        super().__init__()
        d, f, self.n_heads = shape["d_model"], shape["mlp_hidden_size"], shape["n_heads"]
        self.n_kv_heads, self.head_dim = shape["n_kv_heads"], d // self.n_heads
        kv = self.n_kv_heads * self.head_dim
        self.attn_norm = nn.RMSNorm(d, eps=RMS_NORM_EPS)
        self.ff_norm = nn.RMSNorm(d, eps=RMS_NORM_EPS)
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, kv, bias=False)
        self.v_proj = nn.Linear(d, kv, bias=False)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.ff_proj = nn.Linear(d, f, bias=False)
        self.up_proj = nn.Linear(d, f, bias=False)
        self.ff_out = nn.Linear(f, d, bias=False)

    def forward(self, x, rope, cache=None, window=None):  # [B, T, D]
        h = self.attn_norm(x)

        def heads(proj, n_heads):  # [B, H, T, E]
            return proj(h).unflatten(-1, (n_heads, self.head_dim)).transpose(1, 2)

        q = rotate(heads(self.q_proj, self.n_heads), rope)
        k = rotate(heads(self.k_proj, self.n_kv_heads), rope)
        v = heads(self.v_proj, self.n_kv_heads)
        if cache is not None:
            if window is None:
                cache[:] = k, v
            else:
                for held, new in zip(cache, (k, v)):
                    held[:, :, window] = new
                k, v = cache
        groups = self.n_heads // self.n_kv_heads
        if groups > 1:
            k, v = (y.repeat_interleave(groups, 1) for y in (k, v))
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.attn_out(a)
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


def rotate(x, rope):  # [B, H, T, E]
    cos, sin = rope  # [T, E]
    y = x.float()
    low, high = y.chunk(2, -1)
    return (y * cos + torch.cat((-high, low), -1) * sin).to(x.dtype)


class Llada(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.checkpoints = False  # whether blocks are computed again in the backward pass
        self.wte = nn.Embedding(shape["vocab_size"], shape["d_model"])
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape["n_layers"]))
        self.ln_f = nn.RMSNorm(shape["d_model"], eps=RMS_NORM_EPS)
        self.ff_out = nn.Linear(shape["d_model"], shape["vocab_size"], bias=False)

    def forward(self, ids, caches=None, window=None):
        """Logits `[B, T, V]` of tokens `[B, T]`.

        `caches` is a list `[keys, values]` for each block. Without a window they are filled; with
        one, the tokens are those of the window, and the caches have all other positions.
        """
        start, end = (window.start, window.stop) if window else (0, ids.shape[1])
        head_dim = self.shape["d_model"] // self.shape["n_heads"]
        inv_freq = 1.0 / ROPE_THETA ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(start, end).float(), inv_freq).repeat(1, 2)  # [T, E]
        rope = angles.cos(), angles.sin()
        x = self.wte(ids)
        for layer, block in enumerate(self.blocks):
            if self.checkpoints:
                x = checkpoint(block, x, rope, use_reentrant=False)
            else:
                x = block(x, rope, caches[layer] if caches else None, window)
        return self.ff_out(self.ln_f(x))


def random_model(shape, dtype, seed=0, device="cpu"):
    """A model that never takes more memory than its weights in `dtype`."""
    with torch.device("meta"):
        model = Llada(shape).to(DTYPES[dtype])
    model = model.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    # Drawn once and laid out from random places: fast, and no two tensors are alike.
    draws = torch.randn(1 << 22, generator=generator).mul_(0.02).to(device, DTYPES[dtype])
    for p in model.parameters():
        if p.dim() == 1:
            p.fill_(1.0)
            continue
        flat, at = p.view(-1), 0
        while at < flat.numel():
            start = int(torch.randint(draws.numel() // 2, (), generator=generator))
            part = draws[start : start + flat.numel() - at]
            flat[at : at + part.numel()] = part
            at += part.numel()
    return model


def random_ids(shape, *size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(shape["vocab_size"] - 512, size, generator=generator)


def timed(run, rounds):
    """Seconds of `rounds` runs after one that is not timed: median and minimum."""
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), min(seconds)


def report(**fields):
    machine = {
        "torch": torch.__version__,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps({"peer": "pytorch", **fields, **machine}), flush=True)
