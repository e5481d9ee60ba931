"""Measures `llada bench forward` over lengths, masked positions, batches and types, and draws it.

`python tools/speed_figures.py target/release/llada docs/speed` (needs matplotlib) takes some minutes
on a machine that does nothing else; it writes the pictures of docs/speed.md and `measured.json`.
With `--draw` it draws again what is in `measured.json`.
"""

import argparse
import json
import pathlib
import subprocess

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

DTYPES = ["f32", "bf16", "int8", "int4"]
COLORS = dict(zip(DTYPES, ["#777777", "#1f77b4", "#d62728", "#2ca02c"]))
LENGTHS = [32, 64, 128, 256, 512]
MASKED = [1, 8, 32, 64, 128, 256]
BATCHES = [1, 2, 4, 8]


def bench(binary, preset, dtype, length, rounds, **flags):
    command = [binary, "bench", "forward", "--preset", preset, "--dtype", dtype]
    command += ["--length", str(length), "--rounds", str(rounds), "--format", "json"]
    for flag, value in flags.items():
        command += [f"--{flag}", str(value)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    print(preset, dtype, length, flags, flush=True)
    return json.loads(result.stdout)


def measure(binary, threads):
    runs = {"length": [], "masked": [], "batch": [], "memory": []}
    for dtype in DTYPES:
        for length in LENGTHS:
            run = bench(binary, "llada-25m", dtype, length, 10, threads=threads)
            runs["length"].append(run)
        for masked in MASKED:
            run = bench(binary, "llada-25m", dtype, 256, 10, masked=masked, threads=threads)
            runs["masked"].append(run)
        for batch in BATCHES:
            run = bench(binary, "llada-25m", dtype, 64, 10, batch=batch, threads=threads)
            runs["batch"].append(run)
        runs["memory"].append(bench(binary, "llada-1b", dtype, 128, 2, threads=threads))
    return runs


def draw(runs, folder):
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "none", "axes.grid": True})
    plt.rcParams.update({"grid.alpha": 0.3, "figure.figsize": (5.2, 3.4)})
    plt.rcParams.update({"svg.hashsalt": "llada"})
    lines = [
        ("length", "positions", lambda r: r["length"], "25 M, one sequence, all masked"),
        ("masked", "masked positions", lambda r: r["masked"], "25 M, 256 positions"),
        ("batch", "sequences of 64", lambda r: r["batch"], "25 M, all masked"),
    ]
    for name, label, x, title in lines:
        figure, axes = plt.subplots()
        for dtype in DTYPES:
            of = [r for r in runs[name] if r["dtype"] == dtype]
            if of:
                y = [1e3 * r["seconds_min"] for r in of]
                axes.plot([x(r) for r in of], y, "o-", color=COLORS[dtype], label=dtype, ms=3)
        axes.set(xlabel=label, ylabel="ms a forward pass", title=title)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend()
        save(figure, folder / f"{name}.svg")
    figure, axes = plt.subplots()
    of = {r["dtype"]: r for r in runs["memory"]}
    for i, dtype in enumerate(DTYPES):
        peak, weights = of[dtype]["peak_memory_bytes"], of[dtype]["weights_bytes"]
        axes.bar(i, peak / 1e9, color="#dddddd", label="peak" if i == 0 else None)
        axes.bar(i, weights / 1e9, color=COLORS[dtype], width=0.6)
        axes.text(i, peak / 1e9, f"{peak / weights:.2f}", ha="center", va="bottom")
    axes.set_xticks(range(len(DTYPES)), DTYPES)
    axes.set(ylabel="GB", title="LLaDA-1B: weights, and peak of the process (with their ratio)")
    save(figure, folder / "memory.svg")


def save(figure, path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    file = args.folder / "measured.json"
    if not args.draw:
        file.write_text(json.dumps(measure(args.binary, args.threads), indent=1) + "\n")
    draw(json.loads(file.read_text()), args.folder)


if __name__ == "__main__":
    main()
