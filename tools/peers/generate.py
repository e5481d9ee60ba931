"""Speed of the usual samplers of LLaDA in PyTorch, on random weights at a preset's shape.

`--cache none` is low-confidence remasking as in the reference: every step computes all positions
and the logits of all of them, and keeps the surest tokens of the current block. `--cache dual` is
the dual cache of Fast-dLLM (arXiv 2505.22618): a block's first step computes all positions and
stores their keys and values, its other steps compute the block alone. With `--threshold` a step
reveals every token that is this sure (at least one), and `--steps` is not used.

    python tools/peers/generate.py --preset llada-1b --dtype bf16 --steps 32 --block-length 32
    python tools/peers/generate.py --preset llada-1b --dtype bf16 --steps 32 --cache dual

Compare with `llada bench generate`. One JSON line; tokens are the new ones.
"""

import argparse

import torch

from shapes import PRESETS, special_ids
from transformer import DTYPES, random_ids, random_model, report, timed


def quotas(n_masks, steps):
    """Tokens of each step: evenly, the rest in the first ones."""
    base, rest = divmod(n_masks, steps)
    return [base + (step < rest) for step in range(steps)]


def reveal(canvas, logits, mask, quota, threshold):
    """Puts the surest tokens in the place of masks; `canvas` `[B, T]` is what competes.

    Probabilities are of the type of the logits: that of the model in the reference, f64 in
    Fast-dLLM.
    """
    masked = canvas == mask
    # In place of a rule for masks that predict themselves.
    logits[..., mask] = -torch.inf
    probabilities = torch.softmax(logits, -1)  # [B, T, V]
    confidence, tokens = probabilities.max(-1)
    confidence = torch.where(masked, confidence, -torch.inf)
    for row in range(canvas.shape[0]):
        if threshold is None:
            chosen = confidence[row].topk(quota).indices
        else:
            sure = confidence[row] >= threshold
            sure[confidence[row].argmax()] = True
            chosen = sure.nonzero().squeeze(1)
        canvas[row, chosen] = tokens[row, chosen]


class Sampler:
    def __init__(self, args, model, shape):
        self.args, self.model, self.shape = args, model, shape
        self.mask, _ = special_ids(shape)
        self.nfe = 0

    def predict(self, ids, caches=None, window=None):
        self.nfe += 1
        return self.model(ids, caches, window)

    def __call__(self, prompt):  # [B, P] -> [B, P + gen_length]
        args, self.nfe = self.args, 0
        answer = torch.full((prompt.shape[0], args.gen_length), self.mask)
        x = torch.cat((prompt, answer), 1)
        n_blocks = args.gen_length // args.block_length
        for block in range(n_blocks):
            start = prompt.shape[1] + block * args.block_length
            window = slice(start, start + args.block_length)
            self.fill(x, window, quotas(args.block_length, args.steps // n_blocks))
        return x

    def fill(self, x, window, steps):
        caches = None
        if self.args.cache == "dual":
            caches = [[None, None] for _ in range(self.shape["n_layers"])]
        step = 0
        while bool((x[:, window] == self.mask).any()):
            if caches and step > 0:
                logits = self.predict(x[:, window], caches, window)
            else:
                logits = self.predict(x, caches)[:, window]
            if caches:
                logits = logits.double()
            quota = steps[step] if self.args.threshold is None else None
            reveal(x[:, window], logits, self.mask, quota, self.args.threshold)
            step += 1


def parse_args():
    p = argparse.ArgumentParser(
        description="Times the samplers of LLaDA in PyTorch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--preset", choices=PRESETS, default="llada-25m", help="shape")
    p.add_argument("--dtype", choices=DTYPES, default="f32", help="of weights and activations")
    p.add_argument("--cache", choices=("none", "dual"), default="none", help="keys and values")
    p.add_argument("--threads", type=int, default=1, help="threads of one operation")
    p.add_argument("--batch", type=int, default=1, help="sequences")
    p.add_argument("--prompt-length", type=int, default=32, help="tokens of a prompt")
    p.add_argument("--gen-length", type=int, default=128, help="new tokens")
    p.add_argument("--block-length", type=int, default=32, help="tokens of a block")
    p.add_argument("--steps", type=int, default=128, help="steps in all")
    p.add_argument("--threshold", type=float, help="reveal what is this sure")
    p.add_argument("--compile", action="store_true", help="torch.compile, without a cache")
    p.add_argument("--rounds", type=int, default=3, help="timed answers after one that is not")
    args = p.parse_args()
    n_blocks, rest = divmod(args.gen_length, args.block_length)
    if rest or args.steps % n_blocks:
        p.error("blocks must divide the answer, and the steps")
    if args.compile and args.cache != "none":
        p.error("--compile is without a cache")
    return args


@torch.inference_mode()
def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    shape = PRESETS[args.preset]
    model = random_model(shape, args.dtype)
    run = torch.compile(model, dynamic=False) if args.compile else model
    sampler = Sampler(args, run, shape)
    prompt = random_ids(shape, args.batch, args.prompt_length)
    median, least = timed(lambda: sampler(prompt), args.rounds)
    report(
        what="generate", preset=args.preset, dtype=args.dtype, cache=args.cache,
        mode="compiled" if args.compile else "eager", threads=args.threads, batch=args.batch,
        prompt_length=args.prompt_length, gen_length=args.gen_length,
        block_length=args.block_length, steps=args.steps, threshold=args.threshold,
        nfe=sampler.nfe, rounds=args.rounds,
        tokens_per_second=args.batch * args.gen_length / median, seconds=median, seconds_min=least,
    )  # fmt: skip


if __name__ == "__main__":
    main()
