"""From hidden states to the surest tokens in PyTorch, beside the least time that memory allows.

A step of low-confidence remasking: logits of the masked positions, the most likely token of each
with its probability, and the k surest positions. `floor` is the time in which this device reads the
head once, by a copy measured here; no implementation can be faster while the head is not cached.

    python confidence.py --device cuda
    python confidence.py --device cpu --tiny
"""

import argparse

import torch
import torch.nn.functional as F

from timing import add_arguments, measure, report, skip

D_MODEL, VOCAB, ROWS = 4096, 126464, (32, 128, 1024)
TINY = 128, 512, (8,)


def reference(hidden, head, k):
    """As `generate.py`: the softmax of all logits is written out."""
    logits = F.linear(hidden, head)  # [R, V]
    tokens = logits.argmax(-1)
    confidence = torch.softmax(logits, -1).gather(-1, tokens[:, None]).squeeze(-1)
    return tokens, confidence.topk(k).indices


def frugal(hidden, head, k):
    """The same from the greatest logit and the log-sum-exp: the softmax is not written out."""
    logits = F.linear(hidden, head)
    best, tokens = logits.max(-1)
    confidence = (best.float() - torch.logsumexp(logits.float(), -1)).exp()
    return tokens, confidence.topk(k).indices


def bandwidth(args, n_bytes):
    """Bytes in a second that a copy reads and writes."""
    source = torch.randint(0, 255, (n_bytes,), dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    return 2 * n_bytes / min(measure(lambda: target.copy_(source), args))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    args = parser.parse_args()
    d_model, vocab, all_rows = TINY if args.tiny else (D_MODEL, VOCAB, ROWS)
    device = args.device
    generator = torch.Generator(device).manual_seed(1)
    head = torch.randn(vocab, d_model, device=device, generator=generator).mul_(0.02).bfloat16()
    n_bytes = head.numel() * head.element_size()
    floor = n_bytes / bandwidth(args, n_bytes if not args.tiny else 1 << 26)
    ways = {"torch-reference": reference, "torch-frugal": frugal}
    if not args.no_compile:
        ways["torch-compiled"] = torch.compile(frugal, dynamic=False)
    for rows in all_rows:
        hidden = torch.randn(rows, d_model, device=device, generator=generator).bfloat16()
        shape = {"dtype": "bf16", "rows": rows, "columns": vocab}
        flop = 2 * rows * d_model * vocab
        report("confidence", "floor", device, [floor], flop=flop, **shape)
        for impl, way in ways.items():
            try:
                seconds = measure(lambda way=way: way(hidden, head, max(1, rows // 8)), args)
            except Exception as error:  # torch.compile fails in many ways
                skip("confidence", impl, error, **shape)
                continue
            report("confidence", impl, device, seconds, flop=flop, **shape)


if __name__ == "__main__":
    main()
