#!/usr/bin/env bash
# What a bare CUDA machine without internet lacks, in .gpu/; needs the project's environment in .venv.
# Usage: benchmarks/pack_for_gpu.sh train   the text encoder in half precision and small wheels, about 47 MB
#        benchmarks/pack_for_gpu.sh wan     PyAV and small wheels, about 40 MB
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rm -rf .gpu && mkdir -p .gpu/wheels .gpu/minilm
wheels=(platformdirs annotated-types typing-inspection)
[ "$1" != wan ] || wheels+=("av==$(.venv/bin/python -c "import av; print(av.__version__)")")

[ "$1" != train ] || .venv/bin/python - <<'PY'
import shutil
from pathlib import Path

from transformers import AutoTokenizer, BertModel

from longtake.nets.text import minilm_folder

out = Path(".gpu/minilm")
BertModel.from_pretrained(minilm_folder()).half().save_pretrained(out)
AutoTokenizer.from_pretrained(minilm_folder()).save_pretrained(out)
PY

.venv/bin/python -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 -d .gpu/wheels \
  "pydantic==$(.venv/bin/python -c "import pydantic; print(pydantic.__version__)")" \
  "pydantic-core==$(.venv/bin/python -c "import pydantic_core; print(pydantic_core.__version__)")" \
  "${wheels[@]}"
du -sh .gpu
