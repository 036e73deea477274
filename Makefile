# One command per developer act; CI calls the same targets. `make` alone lists them.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
# share of the deliberate faults that `make mutants` tries: K/N, every N-th from number K on
SHARE ?= 0/1
STAMP := $(VENV)/.longtake-setup

.DEFAULT_GOAL := help
.PHONY: help mutants setup demo serve test test-all browser page-types killed ranks compiled check fmt docs ci bench worlds

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## make the virtual environment and install longtake with its tools

# A torch of the supported range that is already on the machine (a CUDA build, say) is used as it is.
# Otherwise a machine without an NVIDIA driver gets exactly the version that comes as a CPU build.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: longtake needs Python 3.11 or newer; try make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $$($(PYTHON) -c '$(TORCH_FITS)' 2>/dev/null && echo --system-site-packages) $(VENV)
	@$(BIN)/python -c '$(TORCH_FITS)' 2>/dev/null || { \
	  if command -v nvidia-smi >/dev/null; then $(BIN)/python -m pip install 'torch>=2.8,<2.14'; \
	  else $(BIN)/python -m pip install 'torch==2.13.0'; fi; }
	$(BIN)/python -m pip install $(addprefix -c ,$(CONSTRAINTS)) -e '.[train,dev]'
	@touch $@

TORCH_FITS := import sys; from importlib.metadata import version; sys.exit(not (2, 8) <= tuple(map(int, version("torch").split(".")[:2])) < (2, 14))

demo: setup ## a ten-second first take: out/first-take.mp4
	$(BIN)/longtake generate "a tiger walks through a forest, then snow starts to fall" --seconds 10 --out out/first-take.mp4

serve: setup ## the studio in the browser, on http://127.0.0.1:8000
	$(BIN)/longtake serve

test: setup ## the default tests: CPU, two cores, no downloads
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-all: setup compiled ## the slow tests too
	$(BIN)/python -m pytest --timeout 1800 -m "not gpu and not browser and not compiled"

browser: setup ## the page in a real browser (Debian's chromium, or LONGTAKE_CHROMIUM), and its scripts in node
	$(BIN)/python -m pytest -m browser tests/browser
	node --test tests/page/

page-types: ## the types in the page's scripts, by TypeScript's compiler
	npx --yes -p typescript@5.9.3 tsc -p tests/page/jsconfig.json

killed: setup ## a server that is killed at work; every operation it offers, with good and bad requests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m slow tests/serve

ranks: setup ## training in two processes, compared with one; shards made on Ray; every stage on one clip; a small Wan on videos
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --timeout 1800 -m slow tests/train/test_ranks.py tests/train/test_by_heart.py tests/train/test_videos.py tests/train/test_cluster.py tests/core/test_tasks.py

compiled: setup ## the tests that run torch.compile, without the shape checker
	LONGTAKE_SHAPES=off $(BIN)/python -m pytest -m "compiled and not gpu"

check: setup ## format, lint, types, floors, docs in step
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	PYTHONPATH=src $(BIN)/lint-imports
	$(BIN)/python docs/make_cli.py --check

fmt: setup ## format the code and fix what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

mutants: setup ## put small faults into a copy of the package, one at a time: the tests must notice each
	$(BIN)/python tests/mutants/run.py --share $(SHARE)

docs: setup ## write docs/cli.md from the live help
	$(BIN)/python docs/make_cli.py

ci: check test ## what must be green before anything lands

bench: setup ## measure this machine: first frames, FPS, memory
	$(BIN)/python -m benchmarks

worlds: setup ## a contact sheet of rendered training scenes: out/worlds.png
	$(BIN)/longtake worlds preview --out out/worlds.png
