#!/usr/bin/env bash
# A model class of one's own in lm-evaluation-harness: what @register_model does to the models it brings.
#
# Guess: @register_model adds a name, and get_model still finds hf, vllm, local-completions and the others.
# What happens: the harness imports its own models when its registry is empty. After the first
# @register_model it is not, so every one of them is "no model for this name found". Imported before, or
# asked for once before, they are all there. Own adapters are files that register a class and call
# cli_evaluate, as LLaDA's own does, so that one command can't compare it with a model of the harness.
# Version: lm_eval 0.4.13.
# Why it matters: an adapter for a server, run as `--model local-completions` to compare both ways to ask
# it, ends with an error that lists no model but the adapter's. `import lm_eval.models` before
# @register_model is what such a file needs.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q lm_eval==0.4.13
cat > "$dir/registry.py" <<'PY'
import sys

from lm_eval.__main__ import cli_evaluate  # noqa: F401
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model, register_model

if sys.argv[2:] == ["import"]:
    import lm_eval.models  # noqa: F401
if sys.argv[1] == "own":

    @register_model("own")
    class Own(LM):
        def loglikelihood(self, requests): ...
        def loglikelihood_rolling(self, requests): ...
        def generate_until(self, requests): ...


try:
    get_model("local-completions")
    print("found")
except ValueError:
    print("not found")
PY
seen=$(for words in none own "own import"; do "$dir/venv/bin/python" "$dir/registry.py" $words; done | tr '\n' ',')
echo "$seen"
test "$seen" = "found,not found,found,"
