"""One training step of a LLaDA with 1B parameters in PyTorch, with and without torch.compile.

Draw t and the mask, forward, the loss of eq. 3 (arXiv 2502.09992) on the masked positions, backward,
clipping of the global norm, fused AdamW; f32 master weights, products in bf16 by autocast. The
shape is `llada bench train --preset llada-1b`. Not run on a GPU yet.

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

from shapes import PRESETS, special_ids  # noqa: E402
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
    def __init__(self, args, shape):
        self.device, self.mask = args.device, special_ids(shape)[0]
        model = Llada(shape)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--preset", choices=PRESETS, default="llada-1b", help="shape")
    parser.add_argument("--batch", type=int, default=4, help="sequences a step")
    parser.add_argument("--length", type=int, default=1024, help="tokens a sequence")
    parser.add_argument("--compile", action="store_true", help="torch.compile trunk and loss")
    args = parser.parse_args()
    shape = PRESETS[args.preset]
    if args.tiny:
        args.preset, shape, args.batch, args.length = "tiny", TINY, 2, 32
    torch.manual_seed(7)
    torch.set_default_device(args.device)
    impl = "torch-compiled" if args.compile else "torch-eager"
    fields = {"preset": args.preset, "dtype": "bf16", "rows": args.batch, "columns": args.length}
    try:
        step = Step(args, shape)
        ids = torch.randint(0, shape["vocab_size"] - 512, (args.batch, args.length))
        first = step(ids).item()
        seconds = measure(lambda: step(ids), args.device, samples=5, sample_seconds=1)
    except Exception as error:  # torch.compile and the memory fail in many ways
        skip("training_step", impl, error, **fields)
        return
    tokens = args.batch * args.length
    report(
        "training_step", impl, args.device, seconds, first_loss=first,
        tokens_per_second=tokens / sorted(seconds)[len(seconds) // 2], **fields,
    )  # fmt: skip


if __name__ == "__main__":
    main()
