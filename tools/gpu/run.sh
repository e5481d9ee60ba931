#!/usr/bin/env bash
# Tests llada's CUDA backend on a GPU, then times it beside PyTorch.
# Needs an NVIDIA GPU (driver 580 or newer), Python with PyTorch, and nothing else.
#
#   ./run.sh                   everything
#   ./run.sh --tests           correctness only
#   ./run.sh --bench           times only
#   ./run.sh --quick           the tests, and the main times in a few minutes
#   ./run.sh --device cpu --tiny --bench    tries the scripts out on a processor
#
# PYTHON names the interpreter (python3). Results go to results/DATE; send that folder back.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

device=cuda
tiny=()
run_tests=1
run_bench=1
quick=0
while [ $# -gt 0 ]; do
    case "$1" in
        --device) device=$2; shift ;;
        --tiny) tiny=(--tiny) ;;
        --tests) run_bench=0 ;;
        --bench) run_tests=0 ;;
        --quick) quick=1 ;;
        *) echo "usage: run.sh [--tests|--bench] [--quick] [--device cuda|cpu] [--tiny]" >&2; exit 2 ;;
    esac
    shift
done

python=${PYTHON:-python3}
results=$here/results/$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$results"
failures=0

# Seconds that a step may take: one that hangs is a failure like any other.
limit=1800
[ "$quick" = 0 ] || limit=60

# Runs a command with its output in a file; a failure is noted and the rest goes on.
step() {
    local name=$1
    shift
    printf '%-44s' "$name"
    local start=$SECONDS
    if timeout "$limit" "$@" >"$results/$name.log" 2>&1; then
        echo "ok, $((SECONDS - start)) s"
    else
        echo "FAILED with $?, see $results/$name.log"
        failures=$((failures + 1))
    fi
}

# The same for a program whose standard output is JSON lines.
record() {
    local name=$1
    shift
    printf '%-44s' "$name"
    local start=$SECONDS
    if timeout "$limit" "$@" >"$results/$name.jsonl" 2>"$results/$name.log"; then
        echo "ok, $((SECONDS - start)) s"
    else
        echo "FAILED with $?, see $results/$name.log"
        failures=$((failures + 1))
    fi
}

cp "$here/build.txt" "$results/"
for packed in "$here"/bin/*.gz "$here"/tests/*.gz; do
    [ ! -e "$packed" ] || gzip -d "$packed"
done
if command -v nvidia-smi >/dev/null; then
    nvidia-smi -q >"$results/nvidia-smi.txt"
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,clocks.max.mem,power.limit \
        --format=csv | tee "$results/gpu.csv"
elif [ "$device" = cuda ]; then
    echo "error: there is no nvidia-smi, and so no GPU" >&2
    exit 1
fi

# cuBLASLt, where only PyTorch brings it.
if ! ldconfig -p 2>/dev/null | grep -q libcublasLt; then
    library=$("$python" -c 'import glob, sys
print(*[f for p in sys.path for f in glob.glob(p + "/nvidia/*/lib/libcublasLt.so.1*")])')
    [ -z "$library" ] || export LD_LIBRARY_PATH=$(dirname "${library%% *}"):${LD_LIBRARY_PATH:-}
fi

export LLADA_GOLDENS=$here/goldens
if [ "$run_tests" = 1 ]; then
    echo "-- correctness"
    for test in "$here"/tests/*; do
        name=$(basename "$test")
        LLADA_DEVICE=$device step "test-$name" "$test" --test-threads 4
    done
    if [ "$quick" = 1 ]; then
        echo "--quick: compute-sanitizer is left out"
    elif command -v compute-sanitizer >/dev/null; then
        # The tests of single ops have small cases; those of models would take hours.
        for tool in memcheck racecheck synccheck initcheck; do
            for tests in llada-cuda-it llada-cuda-unit; do
                step "sanitizer-$tool-$tests" compute-sanitizer --tool "$tool" \
                    --error-exitcode 1 "$here/tests/$tests" --test-threads 1
            done
        done
    else
        echo "compute-sanitizer is not there: left out"
    fi
fi

if [ "$run_bench" = 1 ]; then
    echo "-- times"
    "$python" -c 'import torch; print("PyTorch", torch.__version__)' ||
        { echo "error: $python has no PyTorch; PYTHON names another" >&2; exit 1; }
    cd "$here/python" || exit 1
    # llada and PyTorch by turns, so that both see the same clocks.
    flags=(--device "$device" "${tiny[@]}")
    if [ "$quick" = 1 ]; then
        flags+=(--quick)
        steps=(--length 512)
        torch=(--no-compile)
    else
        steps=()
        torch=()
    fi
    record llada-training "$python" llada.py "$here/bin" "${flags[@]}" --only training
    record torch-train "$python" train.py "${flags[@]}"
    record llada-ops "$python" llada.py "$here/bin" "${flags[@]}" --only ops
    record torch-attention "$python" attention.py "${flags[@]}"
    record torch-confidence "$python" confidence.py "${flags[@]}" "${torch[@]}"
    record llada-models "$python" llada.py "$here/bin" "${flags[@]}" "${steps[@]}" --only models
    record torch-denoise "$python" denoise.py "${flags[@]}" "${steps[@]}" "${torch[@]}"
    [ "$quick" = 1 ] || record torch-train-compiled "$python" train.py "${flags[@]}" --compile
    commit=$(sed -n 's/^commit //p' "$here/build.txt")
    "$python" summary.py "$results"/*.jsonl --commit "$commit" --csv "$results/record.csv" |
        tee "$results/summary.txt"
    echo "for bench/records: $results/record.csv"
fi

[ "$failures" = 0 ] || { echo "$failures steps failed"; exit 1; }
