#!/usr/bin/env bash
# A newline after {% raw %} in a template with trim_blocks: jinja2 against minijinja.
#
# Guess: trim_blocks takes away the newline after a block tag, and {% raw %} is one, so both drop it.
# What happens: jinja2 keeps the newline after {% raw %} (and drops the one after {% endraw %}); minijinja
# drops both. A template that writes its line ends as {% raw %}, newline, {% endraw %} loses all of them.
# Versions: jinja2 3.1.6, minijinja 3.1.0 (the Python package of the Rust crate).
# Why it matters: chat templates are written for jinja2 with trim_blocks, and at least one that a serving
# engine ships writes every line end so: with minijinja the turns of a conversation run together.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q jinja2==3.1.6 minijinja==3.1.0
"$dir/venv/bin/python" - <<'PY'
import jinja2
import minijinja
source = "user{% raw %}\n{% endraw %}hi{% raw %}\n{% endraw %}\n."
theirs = jinja2.Environment(trim_blocks=True).from_string(source).render()
ours = minijinja.Environment(trim_blocks=True).render_str(source)
print(repr(theirs), repr(ours))
assert theirs == "user\nhi\n.", theirs
assert ours == "userhi.", ours
PY
