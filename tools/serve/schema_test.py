#!/usr/bin/env python3
"""Requests that schemathesis makes of the OpenAPI document: none may end in a fault of the server.

    python tools/serve/schema_test.py target/debug/llada [schemathesis flags]

Needs: pip install schemathesis
"""

import pathlib
import subprocess
import sys

SEED = 7


def main():
    llada, *flags = sys.argv[1:]
    server = subprocess.Popen(
        [llada, "serve", "--port", "0", "--timeout", "20"], stderr=subprocess.PIPE, text=True
    )
    try:
        address = next(
            line.split()[-1] for line in server.stderr if line.startswith("listening on ")
        )
        command = [
            str(pathlib.Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{address}/openapi.json",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance",
            "--phases=examples,coverage,fuzzing",
            "--max-examples=40",
            f"--seed={SEED}",
            "--generation-deterministic",
            "--request-timeout=60",
            *flags,
        ]
        sys.exit(subprocess.run(command).returncode)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
