#!/usr/bin/env bash
# The full-size Wan 1.3B with random weights on a GPU: precision, then speed by codec, window and steps.
# Usage: benchmarks/gpu_wan.sh CODEC WINDOW...   (light or full; lines of JSON and pictures in $OUT, out/gpu if not set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 -m pip install -q --no-index --no-deps --target /tmp/site --upgrade .gpu/wheels/*.whl
export PYTHONPATH=src:/tmp/site LONGTAKE_SHAPES=off PYTHONUNBUFFERED=1
OUT=${OUT:-out/gpu}; mkdir -p "$OUT"
codec=$1; shift
[ "$codec" = full ] || python3 -m benchmarks.precision --chunks 3 | tee -a "$OUT/wan.jsonl"
for window in "$@"; do
  for steps in 4 2; do
    python3 -m longtake bench --model wan-1.3b --random-weights --codec "$codec" --window "$window" --steps "$steps" \
      --chunks 16 --cues 0 --no-cold --device cuda --out "$OUT/wan-$codec-$window-$steps.json" | tee -a "$OUT/wan.jsonl" || true
  done
done
rm -f "$OUT"/wan-*.json  # the lines are in wan.jsonl
