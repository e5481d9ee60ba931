"""Speed of PyTorch on one forward pass of a LLaDA: bidirectional, logits of all positions.

Random weights at a preset's shape; one JSON line for each number of threads and each length.

    python tools/peers/forward.py --preset llada-1b --dtype bf16 --threads 1,2 --lengths 128,256
    python tools/peers/forward.py --preset llada-25m --mode compiled
    python tools/peers/forward.py --preset llada-25m --mode frozen

`compiled` is torch.compile; `frozen` also has it pack the weights for its products, which takes
room for a second copy of them. Compare with `llada bench forward`.
"""

import argparse

import torch

from shapes import PRESETS
from transformer import DTYPES, random_ids, random_model, report, timed


def numbers(text):
    return [int(part) for part in text.split(",")]


def parse_args():
    p = argparse.ArgumentParser(
        description="Times a forward pass of a LLaDA in PyTorch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("--preset", choices=PRESETS, default="llada-25m", help="shape")
    p.add_argument("--dtype", choices=DTYPES, default="f32", help="of weights and activations")
    p.add_argument("--mode", choices=("eager", "compiled", "frozen"), default="eager")
    p.add_argument("--threads", type=numbers, default="1", help="such as 1,2")
    p.add_argument("--lengths", type=numbers, default="128,256,512", help="positions")
    p.add_argument("--batch", type=int, default=1, help="sequences")
    p.add_argument("--rounds", type=int, default=5, help="timed passes after one that is not")
    return p.parse_args()


@torch.inference_mode()
def main():
    args = parse_args()
    shape = PRESETS[args.preset]
    model = random_model(shape, args.dtype)
    run = model
    if args.mode != "eager":
        if args.mode == "frozen":
            import torch._inductor.config as inductor

            inductor.freezing = True
        run = torch.compile(model, dynamic=False)
    for threads in args.threads:
        torch.set_num_threads(threads)
        for length in args.lengths:
            ids = random_ids(shape, args.batch, length)
            median, least = timed(lambda: run(ids), args.rounds)
            report(
                what="forward", preset=args.preset, dtype=args.dtype, mode=args.mode,
                threads=threads, batch=args.batch, length=length, rounds=args.rounds,
                tokens_per_second=args.batch * length / median, seconds=median, seconds_min=least,
            )  # fmt: skip


if __name__ == "__main__":
    main()
