"""A table of ratios from the JSON lines of a run, and a CSV for `bench/records`.

For every shape: each time of `llada`, and the ratio of the fastest time of PyTorch to it; a ratio
above 1 means that `llada` is faster. Generations are compared way by way.

    python summary.py RESULTS... --csv FILE --commit HASH
"""

import argparse
import csv
import datetime
import json
import sys
from pathlib import Path

KEY = ("what", "preset", "rows", "columns")
COLUMNS = (
    "date", "commit", "device", "source", "what", "impl", "preset", "dtype", "rows", "columns",
    "seconds", "seconds_min", "tflops", "tokens_per_second", "peak_memory_bytes", "ratio", "torch", "clocks.sm",
    "clocks.mem", "temperature.gpu", "power.draw", "skipped",
)  # fmt: skip


def read(paths):
    lines = []
    for path in paths:
        for text in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                print(f"{path}: not JSON: {text[:80]}", file=sys.stderr)
    return lines


def is_peer(line):
    return line["source"] == "pytorch" and line["impl"] != "floor" and line.get("seconds")


def fastest_peer(line, lines):
    """Of the same shape; of a generation also of the same loop."""

    def fits(other):
        same = all(other.get(field) == line.get(field) for field in KEY)
        return same and (line["what"] != "generation" or other["impl"] == line["impl"])

    return min((x for x in lines if is_peer(x) and fits(x)), key=lambda x: x["seconds"], default=None)


def add_ratios(lines):
    for line in lines:
        if line.get("flop") and line.get("seconds"):
            line["tflops"] = line["flop"] / line["seconds"] / 1e12
        if line["source"] == "llada" and line.get("seconds"):
            peer = fastest_peer(line, lines)
            if peer:
                line["ratio"], line["peer"] = peer["seconds"] / line["seconds"], peer["impl"]


def table(lines):
    head = ("what", "of", "impl", "preset", "dtype", "rows", "columns", "ms", "TFLOP/s", "ratio", "to")
    rows = [head]
    number = lambda x, digits: "-" if x is None else f"{x:.{digits}f}"  # noqa: E731
    for line in sorted(lines, key=lambda x: (str(x["what"]), x.get("rows") or 0, x.get("columns") or 0)):
        seconds = line.get("seconds")
        if not seconds:
            continue
        rows.append((
            line["what"], line["source"], line["impl"], line.get("preset") or "-", line.get("dtype") or "-",
            str(line.get("rows") or "-"), str(line.get("columns") or "-"), number(1e3 * seconds, 4),
            number(line.get("tflops"), 2), number(line.get("ratio"), 2), line.get("peer") or "-",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", help="files of JSON lines")
    parser.add_argument("--csv", type=Path, help="where the record goes")
    parser.add_argument("--commit", default="unknown", help="of the build")
    args = parser.parse_args()
    lines = read(args.results)
    add_ratios(lines)
    print(table(lines))
    skipped = [line for line in lines if "skipped" in line]
    for line in skipped:
        print(f"skipped: {line['what']} {line['impl']} {line.get('rows', '')}: {line['skipped']}")
    if args.csv:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows({"date": today, "commit": args.commit, **line} for line in lines)


if __name__ == "__main__":
    main()
