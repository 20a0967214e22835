# make demo | test | install | lint | faults | cuda-compile | gpu-check | bench | clean
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NATIVE := $(wildcard $(foreach end,cpp cu cuh h inc,csrc/*.$(end) csrc/*/*.$(end) csrc/*/*/*.$(end)))
EMULATION := $(wildcard tests/native/*.cpp tests/native/emulation/*)
PYTEST_WORKERS ?= 2
FAULTS ?= 3000
KILLS ?= 20
SEED ?= 0
RUN ?= runs/demo
NVCC ?= $(shell command -v nvcc)

.PHONY: demo install test lint format faults cuda-compile bench gpu-check clean

demo: install
	$(BIN)/naign train --dataset lfw100 --preset default --out $(RUN)

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml setup.py csrc/cuda_architectures.py $(NATIVE)
	@test -n "$(PYTHON)" || { echo "Python 3.11 was not found; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	NAIGN_REQUIRE_EXTENSION=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --no-build-isolation --no-deps --editable .
	@touch $@

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/mypy && ln -sfn ../../cli build/mypy/naign_cli && ln -sfn ../../bench build/mypy/naign_bench
	MYPYPATH=build/mypy $(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE) $(EMULATION)
	$(BIN)/python -m pytest -q tests/project/test_layers.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE) $(EMULATION)

# Damaged files, odd arguments, kills and full disks; ONLY=KIND:NUMBER does one try again.
faults: install
	PYTHONPATH=tests $(BIN)/python -m faults --faults $(FAULTS) --kills $(KILLS) --seed $(SEED) $(if $(ONLY),--only "$(ONLY)")

bench: install
	$(BIN)/naign bench knn
	$(BIN)/naign bench loss

cuda-compile: install
	$(BIN)/python .ci/cuda_compile.py --nvcc "$(NVCC)"

# On a machine with a GPU and its own torch; STEPS=build,tests,... chooses, see .ci/gpu_check.py.
gpu-check:
	python3 .ci/gpu_check.py $(if $(STEPS),--steps $(STEPS))

clean:
	rm -rf build dist *.egg-info naign_ext/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis $(VENV)
