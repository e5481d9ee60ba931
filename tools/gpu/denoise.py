"""One denoising step of LLaDA-8B, and whole generations, in PyTorch with random weights.

The model and the loops are those of `tools/peers`: the loop of the reference (no cache), and the
dual cache of Fast-dLLM (arXiv 2505.22618), with a fixed number of steps and with a threshold. The
flags are those of `llada bench`.

    python denoise.py --device cuda
    python denoise.py --device cpu --tiny
"""

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "peers"), str(HERE.parent / "peers")]

from generate import Sampler  # noqa: E402
from shapes import PRESETS, special_ids  # noqa: E402
from timing import add_arguments, measure, report, skip  # noqa: E402
from transformer import random_ids, random_model  # noqa: E402

LENGTHS = (128, 512, 1024, 4096)
TINY = {
    "d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "mlp_hidden_size": 96,
    "vocab_size": 1024,
}  # fmt: skip


def step(model, ids, mask):
    """All positions are computed, and the most likely token of each masked one with its probability."""
    logits = model(ids)  # [1, L, V]
    logits[..., mask] = -torch.inf
    confidence, tokens = torch.softmax(logits, -1).max(-1)
    return tokens, confidence


def time_steps(args, model, shape, lengths):
    ways = {"torch-eager": model}
    if not args.no_compile:
        ways["torch-compiled"] = torch.compile(model, dynamic=False)
    mask, _ = special_ids(shape)
    for length in lengths:
        ids = torch.full((1, length), mask)
        fields = {"preset": args.preset, "dtype": args.dtype, "rows": length}
        for impl, run in ways.items():
            try:
                seconds = measure(lambda run=run: step(run, ids, mask), args, samples=5)
            except Exception as error:  # torch.compile and the memory fail in many ways
                skip("denoising_step", impl, error, **fields)
                continue
            report("denoising_step", impl, args.device, seconds, **fields)


def time_generations(args, model, shape, prompt):
    batch, prompt_length = prompt.shape
    for impl, cache, threshold in (
        ("reference", "none", None),
        ("fast-dllm-dual", "dual", None),
        ("fast-dllm-dual-threshold", "dual", 0.9),
    ):
        if args.quick and impl != "fast-dllm-dual":
            continue
        settings = SimpleNamespace(
            gen_length=args.gen_length, block_length=args.block_length, steps=args.gen_length,
            cache=cache, threshold=threshold,
        )  # fmt: skip
        sampler = Sampler(settings, model, shape)
        seconds = measure(lambda: sampler(prompt), args, samples=3, sample_seconds=0)
        report(
            "generation", impl, args.device, seconds, preset=args.preset, dtype=args.dtype,
            rows=args.gen_length, columns=prompt_length, nfe=sampler.nfe,
            tokens_per_second=batch * args.gen_length / sorted(seconds)[len(seconds) // 2],
        )  # fmt: skip


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--preset", choices=PRESETS, default="llada-8b", help="shape")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="bf16", help="of the weights")
    parser.add_argument("--gen-length", type=int, default=128, help="new tokens")
    parser.add_argument("--block-length", type=int, default=32, help="tokens of a block")
    parser.add_argument("--length", type=int, nargs="+", default=LENGTHS, help="of the steps")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    shape, lengths = PRESETS[args.preset], args.length
    if args.tiny:
        args.preset, shape, lengths = "tiny", TINY, (16, 32)
        args.gen_length, args.block_length = 16, 8
    # What the model makes while it runs comes to the device by the default.
    model = random_model(shape, args.dtype, device=args.device)
    prompt = random_ids(shape, 1, 32).to(args.device)
    torch.set_default_device(args.device)
    time_steps(args, model, shape, lengths)
    time_generations(args, model, shape, prompt)


if __name__ == "__main__":
    main()
