#!/usr/bin/env bash
# Which positions torch.topk takes where confidences are equal, as remasking by quota asks it.
#
# Guess: of equal values the first ones, as argmax and a stable descending sort have them.
# What happens on a CPU: of 8 equal values topk(2) takes 6 and 5, of 32 it takes 22 and 21, of 128 it takes
# 0 and 1; and topk(1) of 64 takes 0, which is not among the two that topk(2) takes.
# Version: torch 2.15.0.
# Why it matters: a mask predictor that is sure has many confidences of exactly 1, and the loops of LLaDA,
# Dream and their relatives choose by topk. Which of them are revealed first, and with them later tokens, is
# then an accident of the selection algorithm and of the length; a reimplementation that takes the first one
# is compared with recorded runs only up to such ties.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q torch==2.15.0 numpy
cat > "$dir/ties.py" <<'PY'
import torch

for n in 8, 32, 64, 128:
    x = torch.ones(n)
    top = [torch.topk(x, k).indices.tolist() for k in (1, 2)]
    order = torch.sort(x, descending=True, stable=True).indices[:2].tolist()
    print(n, *top, order, torch.argmax(x).item())
PY
seen=$("$dir/venv/bin/python" "$dir/ties.py")
echo "$seen"
test "$seen" = "8 [6] [6, 5] [0, 1] 0
32 [22] [22, 21] [0, 1] 0
64 [0] [42, 43] [0, 1] 0
128 [0] [0, 1] [0, 1] 0"
