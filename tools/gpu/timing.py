"""Times on a device, and their report: one JSON line for each.

On a GPU the clock is a pair of CUDA events around many calls that were queued without waiting;
on a processor it is the host's.
"""

import json
import math
import statistics
import subprocess
import time

import torch

# Times of a measurement, and the least seconds of each.
FULL, QUICK = (7, 0.1), (3, 0.03)


def add_arguments(parser):
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="where to run")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script out")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")


def elapsed(run, calls, device):
    """Seconds of one of `calls` calls."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / calls


def measure(run, args, samples=None, sample_seconds=None):
    """Seconds of a call in each sample, after calls that are not timed."""
    device, (usual, usual_seconds) = args.device, QUICK if args.quick else FULL
    samples = usual if samples is None else min(samples, usual)
    sample_seconds = usual_seconds if sample_seconds is None else sample_seconds
    elapsed(run, 1, device)
    once = elapsed(run, 1 if args.quick else 2, device)
    calls = max(1, min(10_000, math.ceil(sample_seconds / max(once, 1e-7))))
    return [elapsed(run, calls, device) for _ in range(samples)]


def clocks():
    """What the GPU runs at, as nvidia-smi says; nothing without it."""
    fields = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw")
    query = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        line = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(fields, (value.strip() for value in line.split(","))))


def device_name(device):
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def report(what, impl, device, seconds, **fields):
    line = {
        "source": "pytorch",
        "what": what,
        "impl": impl,
        **fields,
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "device": device_name(device),
        "torch": torch.__version__,
        **clocks(),
    }
    print(json.dumps(line), flush=True)


def skip(what, impl, error, **fields):
    """A line for what this machine or this PyTorch cannot run."""
    text = str(error).strip().splitlines()
    line = {"source": "pytorch", "what": what, "impl": impl, **fields, "skipped": text[0] if text else "?"}
    print(json.dumps(line), flush=True)
