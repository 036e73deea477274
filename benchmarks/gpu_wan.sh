#!/usr/bin/env bash
# The full-size Wan 1.3B with random weights on a GPU: precision, then speed by codec, window and steps, then compiled and in 8 bits.
# Usage: benchmarks/gpu_wan.sh CODEC WINDOW...   (light or full; lines of JSON and pictures in $OUT, out/gpu if not set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 -m pip install -q --no-index --no-deps --target /tmp/site --upgrade .gpu/wheels/*.whl
export PYTHONPATH=src:/tmp/site LONGTAKE_SHAPES=off PYTHONUNBUFFERED=1
OUT=${OUT:-out/gpu}; mkdir -p "$OUT"
codec=$1; shift
if [ "$codec" = light ]; then
  python3 -m benchmarks.precision --chunks 3 | tee -a "$OUT/wan.jsonl"
  python3 -m benchmarks.attention | tee -a "$OUT/wan.jsonl"
fi
bench() {
  local IFS=-
  python3 -m longtake bench --model wan-1.3b --random-weights --codec "$codec" --chunks 16 --cues 0 --no-cold --device cuda \
    --window "$1" --steps "$2" "${@:3}" --out "$OUT/wan-$codec-$*.json" | tee -a "$OUT/wan.jsonl" || true
}
for window in "$@"; do
  for steps in 4 2; do bench "$window" "$steps"; done
done
bench 9 4 --compile
bench 9 4 --fp8
bench 9 4 --fp8 --compile
find "$OUT" -name 'wan-*' ! -name 'wan-*-9-4.png' -delete  # the figures are in wan.jsonl
