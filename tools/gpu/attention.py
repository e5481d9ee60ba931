"""PyTorch's fused attention at the shapes of LLaDA-8B, one sequence, all positions seen.

Forward and backward of every backend of `scaled_dot_product_attention`; the shapes and names are
those of the program `device`.

    python attention.py --device cuda
    python attention.py --device cpu --tiny
"""

import argparse

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from timing import add_arguments, measure, report, skip

BACKENDS = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-math": SDPBackend.MATH,
}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
HEADS, HEAD_DIM, LENGTHS, BLOCK = 32, 128, (128, 256, 512, 1024, 2048, 4096), 32
TINY = 2, 64, (32, 64), 8


def inputs(device, dtype, heads, head_dim, queries, keys):
    generator = torch.Generator(device).manual_seed(queries + keys)

    def random(length):  # [1, H, L, E], laid out as a projection leaves it
        x = torch.randn(1, length, heads, head_dim, device=device, generator=generator)
        return x.to(dtype).transpose(1, 2).requires_grad_()

    return random(queries), random(keys), random(keys)


def time_shape(args, impl, backend, name, heads, head_dim, queries, keys):
    device = args.device
    q, k, v = inputs(device, DTYPES[name], heads, head_dim, queries, keys)
    flop = 4 * heads * queries * keys * head_dim
    shape = {"dtype": name, "rows": queries, "columns": keys}

    def forward():
        with torch.no_grad():
            return F.scaled_dot_product_attention(q, k, v)

    try:
        with sdpa_kernel(backend):
            report("attention_fwd", impl, device, measure(forward, args), flop=flop, **shape)
            if queries != keys:
                return
            y = F.scaled_dot_product_attention(q, k, v)
            dy = torch.randn_like(y)

            def backward():
                torch.autograd.grad(y, (q, k, v), dy, retain_graph=True)

            seconds = measure(backward, args)
            report("attention_bwd", impl, device, seconds, flop=flop // 2 * 5, **shape)
    except RuntimeError as error:
        skip("attention_fwd", impl, error, **shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bf16"], help="of all tensors")
    args = parser.parse_args()
    heads, head_dim, lengths, block = TINY if args.tiny else (HEADS, HEAD_DIM, LENGTHS, BLOCK)
    shapes = [(length, length) for length in lengths] + [(block, lengths[-1])]
    for queries, keys in shapes:
        for dtype in args.dtype:
            for impl, backend in BACKENDS.items():
                time_shape(args, impl, backend, dtype, heads, head_dim, queries, keys)


if __name__ == "__main__":
    main()
