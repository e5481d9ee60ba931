#!/usr/bin/env bash
# The filter `safe` in a chat template: what becomes of the texts beside it.
#
# Guess: transformers renders chat templates without autoescaping, so `safe`, which only marks a text as
# not to be escaped, changes nothing.
# What happens: `safe` makes a Markup of markupsafe, and `+` with a Markup escapes the other text: <, >, &
# and quotes of whatever is added to it reach the prompt as &lt;, &gt;, &amp;, &#34; and &#39;, without a
# warning. `~`, which joins texts as well, leaves them alone, and so does a text beside it without an operator.
# Versions: jinja2 3.1.6, markupsafe 3.0.3, transformers 5.24.0.
# Why it matters: a published template of a tool-calling model adds the description of a function to a safe
# text (its authors meant to keep quotes as they are), so the model reads HTML entities in it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q jinja2==3.1.6 markupsafe==3.0.3 transformers==5.24.0
"$dir/venv/bin/python" - 2>/dev/null <<'PY'
from transformers.utils.chat_template_utils import render_jinja_template
messages = [{"role": "user", "content": "a < b"}]
def render(expression):
    return render_jinja_template([messages], chat_template="{{ " + expression + " }}")[0][0]
seen = {
    "plain": render("'Use: ' + messages[0].content"),
    "plus": render("'Use: '|safe + messages[0].content"),
    "tilde": render("'Use: '|safe ~ messages[0].content"),
    "beside": render("'Use: '|safe }}{{ messages[0].content"),
}
print(seen)
assert seen == {"plain": "Use: a < b", "plus": "Use: a &lt; b", "tilde": "Use: a < b", "beside": "Use: a < b"}, seen
PY
