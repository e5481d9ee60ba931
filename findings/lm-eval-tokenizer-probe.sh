#!/usr/bin/env bash
# lm-evaluation-harness against a server (local-completions): when the server's own tokenizer is taken.
#
# Guess: tokenizer_backend=auto takes it if GET /tokenizer_info and POST /tokenize answer there.
# What happens: it asks /tokenize for the tokens of the English word "test", three times. A server that
# refuses text its model has no tokens for, as one of a Chinese character vocabulary may, counts as one
# without a tokenizer. Then the harness loads a Hugging Face tokenizer by the name of the served model: an
# ImportError of transformers where it is not installed, a request to the Hub where it is.
# Version: lm_eval 0.4.13 with its extra "api".
# Why it matters: whether a command line works depends on the alphabet of the model. The server should answer
# with its unknown token; tokenizer_backend=remote asks nothing.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q "lm_eval[api]==0.4.13"
NO_PROXY=127.0.0.1 "$dir/venv/bin/python" - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from lm_eval.utils import check_remote_tokenizer_support

asked = []


class Handler(BaseHTTPRequestHandler):
    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, {"eos_token": "[EOS]"})

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
        asked.append(text)
        known = not text.isascii() or self.server.knows_ascii
        self.answer(200 if known else 400, {"tokens": [1]} if known else {"error": "unknown"})

    def log_message(self, *args):
        pass


found = []
for knows_ascii in (True, False):
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.knows_ascii = knows_ascii
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found.append(check_remote_tokenizer_support(f"http://127.0.0.1:{server.server_port}/v1/completions"))
        server.shutdown()
print(found, asked)
assert found == [True, False], found
assert asked == ["test"] * 4, asked
PY
