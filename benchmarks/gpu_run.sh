#!/usr/bin/env bash
# One part of the GPU training, on a machine with CUDA torch, transformers, einops, jaxtyping, safetensors, typer and rich.
# Usage: benchmarks/gpu_run.sh RECIPE MINUTES STAGE...   (state stays in runs/gpu; sheets and, at the end, the
# model are copied to $OUT, out/gpu if not set)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 -m pip install -q --no-index --no-deps --target /tmp/site --upgrade .gpu/wheels/*.whl
export PYTHONPATH=src:/tmp/site LONGTAKE_MINILM=.gpu/minilm PYTHONUNBUFFERED=1
recipe=$1 minutes=$2; shift 2
OUT=${OUT:-out/gpu}; mkdir -p "$OUT"
nvidia-smi --query-gpu=name,memory.used --format=csv,noheader
python3 -m longtake train "$recipe" --out runs/gpu --device cuda --max-minutes "$minutes" $(printf -- '--stage %s ' "$@")
for stage in "$@"; do
  tail -n 3 "runs/gpu/$stage/events.jsonl" 2>/dev/null || true
  cp "runs/gpu/$stage/provenance.json" "$OUT/$stage-provenance.json" 2>/dev/null || true
  sheet=$(ls runs/gpu/"$stage"/samples_*.png 2>/dev/null | tail -n 1)
  [ -z "$sheet" ] || cp "$sheet" "$OUT/$stage.png"
done
[ ! -d runs/gpu/model ] || cp runs/gpu/model/* "$OUT/"
