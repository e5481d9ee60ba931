"""A training step of LLaDAs with 25M, 100M and 1B parameters in PyTorch.

Draw t and the mask, forward, the loss of eq. 3 (arXiv 2502.09992) on the masked positions, backward,
clipping of the global norm, fused AdamW; f32 master weights, products in bf16 by autocast. The
shapes are those of `llada.py`.

    python train.py --device cuda
    python train.py --device cpu --tiny
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "peers"), str(HERE.parent / "peers")]

from shapes import PRESETS, TRAINING, special_ids  # noqa: E402
from timing import add_arguments, measure, report, skip  # noqa: E402
from transformer import Llada  # noqa: E402

MASK_EPS = 1e-3
TINY = {
    "d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "mlp_hidden_size": 96,
    "vocab_size": 1024,
}  # fmt: skip


class Trunk(torch.nn.Module):
    """Everything below the head of a model: `[B, L] -> [B, L, D]`."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.head, model.ff_out = model.ff_out, torch.nn.Identity()

    def forward(self, ids):
        return self.model(ids)


def masked_loss(hidden, weight, targets, p_mask, n_tokens):
    logits = F.linear(hidden, weight)  # [M, V]
    ce = F.cross_entropy(logits.float(), targets, reduction="none")
    return (ce / p_mask).sum() / n_tokens


class Step:
    def __init__(self, args, shape, checkpoints):
        self.device, self.mask = args.device, special_ids(shape)[0]
        model = Llada(shape)
        model.checkpoints = checkpoints
        for p in model.parameters():
            if p.dim() > 1:
                torch.nn.init.normal_(p, std=0.02)
        trunk = Trunk(model)
        self.params = list(trunk.parameters())
        self.head = trunk.head.weight
        self.trunk, self.loss = trunk, masked_loss
        if args.compile:
            self.trunk = torch.compile(trunk, dynamic=False)
            self.loss = torch.compile(masked_loss, dynamic=True)
        self.opt = torch.optim.AdamW(
            [
                {"params": [p for p in self.params if p.dim() > 1], "weight_decay": 0.1},
                {"params": [p for p in self.params if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=1e-4, betas=(0.9, 0.95), fused=True,
        )  # fmt: skip

    def __call__(self, ids):
        t = torch.rand(ids.shape[0], 1)
        p_mask = ((1 - MASK_EPS) * t + MASK_EPS).expand(ids.shape)
        masked = torch.rand(ids.shape) < p_mask
        noisy = torch.where(masked, self.mask, ids)
        where = masked.flatten().nonzero().squeeze(1)  # [M]
        with torch.autocast(self.device, torch.bfloat16):
            hidden = self.trunk(noisy).flatten(0, 1).index_select(0, where)
            targets, p = ids.flatten()[where], p_mask.flatten()[where]
            loss = self.loss(hidden, self.head, targets, p, ids.numel())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        return loss


def time_step(args, preset, shape, batch, length, checkpoints):
    impl = "torch-compiled" if args.compile else "torch-eager"
    what = "training_step_checkpointed" if checkpoints else "training_step"
    fields = {"preset": preset, "dtype": "bf16", "rows": batch, "columns": length}
    on_gpu = args.device == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        step = Step(args, shape, checkpoints)
        ids = torch.randint(0, shape["vocab_size"] - 512, (batch, length))
        first = step(ids).item()
        seconds = measure(lambda: step(ids), args, samples=5, sample_seconds=0.5)
    except Exception as error:  # torch.compile and the memory fail in many ways
        skip(what, impl, error, **fields)
        return
    peak = torch.cuda.max_memory_reserved() if on_gpu else None
    report(
        what, impl, args.device, seconds, first_loss=first, peak_memory_bytes=peak,
        tokens_per_second=batch * length / sorted(seconds)[len(seconds) // 2], **fields,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--preset", nargs="+", choices=PRESETS, help="these shapes alone")
    parser.add_argument("--compile", action="store_true", help="torch.compile trunk and loss")
    args = parser.parse_args()
    torch.manual_seed(7)
    torch.set_default_device(args.device)
    if args.tiny:
        for checkpoints in (False, True):
            time_step(args, "tiny", TINY, 2, 32, checkpoints)
        return
    for preset, batch, length, checkpoints in TRAINING:
        if args.preset is None or preset in args.preset:
            time_step(args, preset, PRESETS[preset], batch, length, checkpoints)


if __name__ == "__main__":
    main()
