"""Builds llama.cpp from the source package of llama-cpp-python, and measures its speed.

    python tools/peers/llama_cpp.py build FOLDER
    python tools/peers/llama_cpp.py forward FOLDER MODEL.gguf --threads 1,2
    python tools/peers/llama_cpp.py generate FOLDER MODEL.gguf --threads 2 --steps 32

Needs a C++ compiler, and cmake and ninja (both are on PyPI). Models: `random_gguf.py`. One JSON
line for each number of threads.

`forward` is llama-bench on a prompt. It computes the logits of the last position alone, so it
compares with `llada bench forward --masked 1`.
`generate` is llama-diffusion-cli: uncached, logits of all positions in every step.
`sampling_seconds`, a part of `seconds`, is what it does with the logits. It counts as many blocks
as prompt and answer have together, and runs one pass for each that lies past the end: those passes
are taken off `seconds`.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import statistics
import string
import subprocess
import sys
import tarfile

TARGETS = ("llama-bench", "llama-diffusion-cli")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release", "GGML_NATIVE": "ON", "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_COMMON": "ON", "LLAMA_BUILD_TOOLS": "ON", "LLAMA_BUILD_EXAMPLES": "ON",
    "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_SERVER": "OFF", "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF", "LLAMA_OPENSSL": "OFF",
}  # fmt: skip


def build(args):
    source = args.folder / "source"
    package = "llama-cpp-python" + (f"=={args.version}" if args.version else "")
    if not source.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(args.folder)]
        subprocess.run([*pip, "--no-binary", "llama-cpp-python", package], check=True)
        archive = max(args.folder.glob("llama_cpp_python-*.tar.gz"), key=os.path.getmtime)
        with tarfile.open(archive) as tar:
            tar.extractall(source, filter="data")
    llama = next(source.glob("*/vendor/llama.cpp"))
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    out = args.folder / "build"
    subprocess.run(["cmake", "-G", "Ninja", "-S", llama, "-B", out, *options], check=True)
    subprocess.run(["ninja", "-C", out, f"-j{args.jobs}", *TARGETS], check=True)


def run(args, program, flags):
    program = args.folder / "build/bin" / program
    command = [program, "-m", args.model, *map(str, flags)]
    # A random answer is no UTF-8.
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if result.returncode:
        sys.exit(f"{program} failed:\n{result.stderr[-2000:]}")
    return result.stdout, result.stderr


def report(args, **fields):
    machine = {
        "model": args.model.name,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps({"peer": "llama.cpp", **fields, **machine}), flush=True)


def forward(args):
    for threads in args.threads:
        flags = ["-p", args.length, "-n", 0, "-t", threads, "-r", args.rounds, "-o", "json"]
        for test in json.loads(run(args, "llama-bench", flags)[0]):
            samples = sorted(ns / 1e9 for ns in test["samples_ns"])
            median = statistics.median(samples)
            report(
                args, what="forward", type=test["model_type"], threads=threads,
                length=args.length, rounds=args.rounds, tokens_per_second=args.length / median,
                seconds=median, seconds_min=samples[0], build=test["build_commit"],
            )  # fmt: skip


def generate(args):
    # Each letter is a token of the random vocabulary.
    letters = string.ascii_lowercase * (args.prompt_length // 26 + 1)
    total = args.prompt_length + args.gen_length
    blocks, past_the_end = (n // args.block_length for n in (args.gen_length, args.prompt_length))
    if total % args.block_length or args.gen_length % args.block_length or args.steps % blocks:
        sys.exit("blocks must divide prompt and answer, and the steps")
    all_steps = args.steps // blocks * (blocks + past_the_end)
    for threads in args.threads:
        flags = [
            "-p", letters[: args.prompt_length], "-ub", total, "-b", total, "-c", total,
            "-t", threads, "--temp", 0, "--diffusion-steps", all_steps,
            "--diffusion-block-length", args.block_length, "--diffusion-algorithm", 4,
        ]  # fmt: skip
        text = "\n".join(run(args, "llama-diffusion-cli", flags))
        found = re.search(
            r"total time: ([\d.]+)ms, time per step: ([\d.]+)ms, "
            r"sampling time per step: ([\d.]+)ms",
            text,
        )
        if not found:
            sys.exit(f"no time in the output:\n{text[-2000:]}")
        run_seconds, _, sampling = (float(ms) / 1000 for ms in found.groups())
        sampling *= all_steps
        passes = (run_seconds - sampling) / (args.steps + past_the_end)
        seconds = sampling + passes * args.steps
        report(
            args, what="generate", threads=threads, prompt_length=args.prompt_length,
            gen_length=args.gen_length, block_length=args.block_length, steps=args.steps,
            tokens_per_second=args.gen_length / seconds, seconds=seconds,
            sampling_seconds=sampling, seconds_per_pass=passes,
        )  # fmt: skip


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = p.add_subparsers(required=True)
    b = commands.add_parser("build", help="download, configure and compile")
    b.add_argument("folder", type=pathlib.Path, help="where source and build go")
    b.add_argument("--version", help="of llama-cpp-python; without it the newest")
    b.add_argument("--jobs", type=int, default=1, help="compilers at a time")
    b.set_defaults(run=build)
    f = commands.add_parser("forward", help="llama-bench on a prompt")
    g = commands.add_parser("generate", help="llama-diffusion-cli")
    for c, function in ((f, forward), (g, generate)):
        c.add_argument("folder", type=pathlib.Path, help="that of the build")
        c.add_argument("model", type=pathlib.Path, help="GGUF file")
        c.add_argument("--threads", type=lambda text: text.split(","), default=["1"])
        c.set_defaults(run=function)
    f.add_argument("--length", type=int, default=128, help="positions")
    f.add_argument("--rounds", type=int, default=5)
    g.add_argument("--prompt-length", type=int, default=32)
    g.add_argument("--gen-length", type=int, default=128)
    g.add_argument("--block-length", type=int, default=32)
    g.add_argument("--steps", type=int, default=128, help="in all")
    return p.parse_args()


def main():
    args = parse_args()
    if args.run is build:
        args.folder.mkdir(parents=True, exist_ok=True)
    args.run(args)


if __name__ == "__main__":
    main()
