"""Training speed of PyTorch on a LLaDA: one full step, timed.

A LLaDA block Transformer (RMSNorm, RoPE on halves, bidirectional attention, SwiGLU) written
plainly in PyTorch, with every shortcut that `llada` takes itself: the head and the loss run on
the masked positions alone, attention is the fused one, AdamW is the fused one.

A step is: draw t and the mask, forward, the loss of eq. 3 (arXiv 2502.09992), backward,
clipping of the global norm, AdamW. The result is one JSON object on standard output.

    python tools/peers/train_step.py --best --dtype bf16 --threads 2
"""

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

MASK_EPS = 1e-3


class Rope(nn.Module):
    """Rotates the halves of every head, as the reference does (`rope_theta` 500000)."""

    def __init__(self, head_dim, seq_len, theta=500000.0):
        super().__init__()
        inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angles = torch.outer(torch.arange(seq_len).float(), inv_freq)  # [L, E/2]
        self.register_buffer("cos", torch.cat((angles, angles), -1).cos(), persistent=False)
        self.register_buffer("sin", torch.cat((angles, angles), -1).sin(), persistent=False)

    def forward(self, x):  # [B, H, L, E]
        low, high = x.chunk(2, -1)
        return x * self.cos.to(x.dtype) + torch.cat((-high, low), -1) * self.sin.to(x.dtype)


class Block(nn.Module):
    """Names are those of the published checkpoint."""

    def __init__(self, cfg, rope):
        super().__init__()
        d, f = cfg.d_model, cfg.mlp_hidden_size
        self.n_heads, self.rope = cfg.n_heads, rope
        self.sdpa = SDPBackend.MATH if cfg.attention == "math" else SDPBackend.FLASH_ATTENTION
        self.attn_norm = nn.RMSNorm(d, eps=1e-5)
        self.ff_norm = nn.RMSNorm(d, eps=1e-5)
        self.q_proj = nn.Linear(d, d, bias=False)
        self.k_proj = nn.Linear(d, d, bias=False)
        self.v_proj = nn.Linear(d, d, bias=False)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.ff_proj = nn.Linear(d, f, bias=False)
        self.up_proj = nn.Linear(d, f, bias=False)
        self.ff_out = nn.Linear(f, d, bias=False)

    def forward(self, x):  # [B, L, D]
        batch, seq_len, d_model = x.shape
        h = self.attn_norm(x)
        heads = (batch, seq_len, self.n_heads, d_model // self.n_heads)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (proj(h).view(heads).transpose(1, 2) for proj in projections)  # [B, H, L, E]
        with sdpa_kernel(self.sdpa):
            a = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v)
        x = x + self.attn_out(a.transpose(1, 2).reshape(batch, seq_len, d_model))
        h = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))


class Trunk(nn.Module):
    """Everything below the head."""

    def __init__(self, cfg):
        super().__init__()
        rope = Rope(cfg.d_model // cfg.n_heads, cfg.seq_len)
        self.wte = nn.Embedding(cfg.vocab_size, cfg.d_model)
        self.blocks = nn.ModuleList(Block(cfg, rope) for _ in range(cfg.n_layers))
        self.ln_f = nn.RMSNorm(cfg.d_model, eps=1e-5)

    def forward(self, ids):  # [B, L] -> [B, L, D]
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)


class Llada(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.trunk = Trunk(cfg)
        self.ff_out = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
        if cfg.tied:
            self.ff_out.weight = self.trunk.wte.weight
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)


def forward_process(ids, mask_token_id):
    """Every sequence draws its t, every token is masked with p = (1 - eps) t + eps."""
    t = torch.rand(ids.shape[0], 1)
    p_mask = ((1 - MASK_EPS) * t + MASK_EPS).expand(ids.shape)
    masked = torch.rand(ids.shape) < p_mask
    return torch.where(masked, mask_token_id, ids), masked, p_mask


def masked_loss(hidden, weight, targets, p_mask, n_tokens):
    """Eq. 3 on the masked positions: `hidden` is `[M, D]`, `targets` and `p_mask` are `[M]`."""
    logits = F.linear(hidden, weight)  # [M, V]
    ce = F.cross_entropy(logits.float(), targets, reduction="none")
    return (ce / p_mask).sum() / n_tokens


class Step:
    """One full training step on random tokens."""

    def __init__(self, cfg):
        self.cfg = cfg
        self.model = Llada(cfg)
        self.trunk, self.loss = self.model.trunk, masked_loss
        params = list(self.model.parameters())
        self.low = None
        if cfg.dtype == "bf16-weights":
            self.low = params
            params = [p.detach().clone().requires_grad_() for p in self.low]
            self.model.to(torch.bfloat16)
        self.params = params
        if cfg.compile:
            self.trunk = torch.compile(self.trunk, dynamic=False)
            self.loss = torch.compile(self.loss, dynamic=True)
        decayed = [p for p in params if p.dim() > 1]
        plain = [p for p in params if p.dim() <= 1]
        self.opt = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
            lr=1e-4,
            betas=(0.9, 0.95),
            fused=True,
        )

    def forward(self, ids):
        noisy, masked, p_mask = forward_process(ids, self.cfg.vocab_size - 1)
        where = masked.flatten().nonzero().squeeze(1)  # [M]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.cfg.dtype == "bf16"):
            hidden = self.trunk(noisy).flatten(0, 1).index_select(0, where)
            targets, p = ids.flatten()[where], p_mask.flatten()[where]
            return self.loss(hidden, self.model.ff_out.weight, targets, p, ids.numel())

    def __call__(self, ids):
        loss = self.forward(ids)
        loss.backward()
        if self.low is not None:
            for p, low in zip(self.params, self.low):
                p.grad, low.grad = low.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        if self.low is not None:
            torch._foreach_copy_([p.data for p in self.low], [p.data for p in self.params])
        return loss.item()


def flop_per_step(cfg):
    """Multiplications and additions of the matrix products, half of the positions masked."""
    d, f, tokens = cfg.d_model, cfg.mlp_hidden_size, cfg.batch * cfg.seq_len
    block = 4 * d * d + 3 * d * f + 2 * cfg.seq_len * d
    return 6 * tokens * (cfg.n_layers * block + 0.5 * d * cfg.vocab_size)


def cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next(x.split(":", 1)[1].strip() for x in f if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def parse_args():
    p = argparse.ArgumentParser(
        description="Times one full training step of a LLaDA in PyTorch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--d-model", type=int, default=384, help="width")
    p.add_argument("--n-layers", type=int, default=8, help="blocks")
    p.add_argument("--n-heads", type=int, default=6, help="attention heads")
    p.add_argument("--mlp-hidden-size", type=int, default=1536, help="width of the SwiGLU")
    p.add_argument("--vocab-size", type=int, default=8192, help="rows of the embedding")
    p.add_argument("--batch", type=int, default=16, help="sequences a step")
    p.add_argument("--seq-len", type=int, default=128, help="tokens a sequence")
    p.add_argument("--tied", action="store_true", help="share the head with the embedding")
    p.add_argument(
        "--dtype",
        choices=("f32", "bf16", "bf16-weights"),
        default="f32",
        help="bf16 is autocast over f32 weights; bf16-weights keeps a bf16 copy of f32 masters",
    )
    p.add_argument("--attention", choices=("flash", "math"), default="flash", help="SDPA backend")
    p.add_argument("--compile", action="store_true", help="torch.compile trunk and loss")
    p.add_argument("--threads", type=int, default=1, help="threads of one operation")
    p.add_argument("--steps", type=int, default=10, help="timed steps")
    p.add_argument("--warmup", type=int, default=3, help="steps before the clock starts")
    p.add_argument("--seed", type=int, default=7, help="seed of weights, tokens and masks")
    p.add_argument(
        "--best", action="store_true", help="time every way to run this dtype, print the fastest"
    )
    return p.parse_args()


def measure(cfg):
    torch.set_num_threads(cfg.threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(cfg.seed)
    step = Step(cfg)
    batches = torch.randint(0, cfg.vocab_size - 1, (cfg.warmup + cfg.steps, cfg.batch, cfg.seq_len))
    losses, seconds, cpu_seconds = [], [], []
    for ids in batches:
        start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(step(ids))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    timed = seconds[cfg.warmup :]
    median = statistics.median(timed)
    tokens = cfg.batch * cfg.seq_len
    return {
        "peer": "pytorch",
        "tokens_per_second": tokens / median,
        "tokens_per_second_min": tokens / max(timed),
        "tokens_per_second_max": tokens / min(timed),
        "seconds_per_step": median,
        "cpu_seconds_per_step": statistics.median(cpu_seconds[cfg.warmup :]),
        "gops": flop_per_step(cfg) / median / 1e9,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "parameters": sum(p.numel() for p in step.model.parameters()),
        "settings": {name: value for name, value in vars(cfg).items() if name != "best"},
        "torch": torch.__version__,
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0],
    }


def best(cfg):
    """Times every variant in a process of its own, and returns the one with the best median."""
    dtypes = ("bf16", "bf16-weights") if cfg.dtype.startswith("bf16") else (cfg.dtype,)
    # Memory of a step is kept for the next one, instead of a page fault per page and step.
    keep_memory = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
    given = [arg for arg in sys.argv[1:] if arg not in ("--best", "--compile")]
    runs = []
    compiles = ([], ["--compile"])
    for dtype, attention, flags in itertools.product(dtypes, ("flash", "math"), compiles):
        variant = ["--dtype", dtype, "--attention", attention, *flags]
        command = [sys.executable, __file__, *given, *variant]  # the last of two equal flags counts
        env = {**os.environ, **keep_memory}
        result = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(result.stdout))
        print(f"{' '.join(variant)}: {runs[-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    return max(runs, key=lambda run: run["tokens_per_second"])


def main():
    cfg = parse_args()
    print(json.dumps(best(cfg) if cfg.best else measure(cfg)))


if __name__ == "__main__":
    main()
