"""What PyTorch is timed at, timed in `llada`: steps, generations and training steps.

Runs `bin/llada bench` and the program `device` beside it, and prints one JSON line for each time.

    python llada.py BIN --device cuda
    python llada.py BIN --device cpu --tiny
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "peers"), str(HERE.parent / "peers")]

from shapes import TRAINING  # noqa: E402
from timing import add_arguments, clocks, device_name  # noqa: E402


def bench(args, what, impl, flags, **fields):
    command = [
        str(args.bin / "llada"), "bench", *flags, "--device", args.device, "--format", "json",
    ]  # fmt: skip
    line = {"source": "llada", "what": what, "impl": impl, **fields, "command": " ".join(command[1:])}
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
        result = json.loads(run.stdout)
        for key in ("seconds", "seconds_min", "tokens_per_second", "percent_of_peak", "rounds", "peak_memory_bytes"):
            line[key] = result.get(key)
        line.update(clocks())
    except subprocess.CalledProcessError as error:
        line["skipped"] = (error.stderr.strip().splitlines() or ["?"])[-1]
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        line["skipped"] = str(error).splitlines()[0]
    line["device"] = device_name(args.device)
    print(json.dumps(line), flush=True)


def models(args):
    preset, lengths = ("llada-25m", (16, 32)) if args.tiny else ("llada-8b", args.length)
    model = ["--preset", preset, "--dtype", args.dtype]
    fields = {"preset": preset, "dtype": args.dtype}
    for length in lengths:
        flags = ["forward", "--length", str(length), *model]
        bench(args, "denoising_step", "llada", flags, rows=length, **fields)
    gen, block = (16, 8) if args.tiny else (128, 32)
    sizes = ["--prompt-length", "32", "--gen-length", str(gen), "--block-length", str(block)]
    for impl, flags in (
        ("reference", []),
        ("fast-dllm-dual", ["--cache", "dual"]),
        ("fast-dllm-dual-threshold", ["--cache", "dual", "--threshold", "0.9"]),
    ):
        if args.quick and impl != "fast-dllm-dual":
            continue
        bench(args, "generation", impl, ["generate", *sizes, *flags, *model], rows=gen, columns=32, **fields)


def training(args):
    for preset, batch, length, checkpoints in (("llada-25m", 2, 32, False),) if args.tiny else TRAINING:
        what = "training_step_checkpointed" if checkpoints else "training_step"
        flags = ["train", "--batch", str(batch), "--length", str(length), "--preset", preset]
        flags += ["--activation-checkpointing"] * checkpoints + ["--dtype", args.dtype]
        bench(args, what, "llada", flags, rows=batch, columns=length, preset=preset, dtype=args.dtype)


def ops(args):
    command = [str(args.bin / "device"), args.device, *(["--tiny"] if args.tiny else [])]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for text in run.stdout:
        line = {**json.loads(text), "device": device_name(args.device), **clocks()}
        print(json.dumps(line), flush=True)
    if run.wait() != 0:
        line = {"source": "llada", "what": "ops", "impl": "llada", "skipped": f"exit code {run.returncode}"}
        print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bin", type=Path, help="folder of the programs")
    add_arguments(parser)
    parser.add_argument("--dtype", default="bf16", help="of the weights")
    lengths = (128, 512, 1024, 4096)
    parser.add_argument("--length", type=int, nargs="+", default=lengths, help="of denoising steps")
    parser.add_argument("--only", choices=("ops", "models", "training"), help="leave the others out")
    args = parser.parse_args()
    for name, run in (("ops", ops), ("models", models), ("training", training)):
        if args.only in (None, name):
            run(args)


if __name__ == "__main__":
    main()
