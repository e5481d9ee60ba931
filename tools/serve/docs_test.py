#!/usr/bin/env python3
"""Runs every curl line of docs/server.md against a server of its own.

    python3 tools/serve/docs_test.py target/debug/llada [--print]

Each must exit with 0 and give an answer that is no error; --print shows the answers.
"""

import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "server.md"


def commands(text):
    """The curl commands of the page's blocks; one goes on while a line is indented."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for command in re.split(r"\n(?=\S)", block.strip()):
            if command.startswith("curl "):
                yield command


def main():
    server = subprocess.Popen(
        [sys.argv[1], "serve", "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    try:
        address = next(
            line.split()[-1] for line in server.stderr if line.startswith("listening on ")
        )
        count = 0
        for command in commands(PAGE.read_text(encoding="utf-8")):
            here = command.replace("http://127.0.0.1:8080", address)
            here = here.replace("curl -s", "curl --fail-with-body -s", 1)
            ran = subprocess.run(here, shell=True, capture_output=True, text=True, timeout=120)
            if "--print" in sys.argv:
                print(f"$ {command}\n{ran.stdout}")
            if ran.returncode != 0 or not ran.stdout:
                sys.exit(f"{command}\nexit {ran.returncode}: {ran.stdout}{ran.stderr}")
            count += 1
        print(f"{count} requests of docs/server.md were answered")
        if count < 15:
            sys.exit("the page has lost its requests")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
