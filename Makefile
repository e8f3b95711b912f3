# Everything runs in a virtual environment of its own. PIP_ARGS is given to every pip install.
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(PIP_ARGS)
FACTS := pyproject.toml setup.cfg constraints.txt

.PHONY: quickstart test test-slow test-exhaustive test-slurm test-slurm-slow chaos lint docs bench bench-gpu clean

quickstart: $(VENV)/.samples
	$(BIN)/shoal samples smollm2-135m-instruct movie_reviews
	$(BIN)/shoal run quickstart

# Two files at a time where much of a test is waiting; slow ones compute, and on two cores gain nothing
# (17 min 42 s instead of 16). In the order of their names: the files with the most tests
# are not those that take longest.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not exhaustive and not slurm and not gpu" $(TWO)

SLOW := slow and not exhaustive and not slurm and not gpu
MAKES_SAMPLES := tests/launcher/test_samples_real.py

# Samples that are not there yet are made by the tests that look at them, for the others too.
test-slow: $(VENV)/.test $(VENV)/.samples
	$(BIN)/python -m pytest -m "$(SLOW)" $(MAKES_SAMPLES)
	$(BIN)/python -m pytest -m "$(SLOW)" --ignore $(MAKES_SAMPLES)

# Every kind, stage and quantisation with every other that a shorter test stands for; nodes that come and
# go within a run.
test-exhaustive: $(VENV)/.test $(VENV)/.samples
	$(BIN)/python -m pytest -m "exhaustive and not slurm and not gpu"

# Several machines with a real SLURM, in namespaces of this one: needs root and what .ci/slurm installs.
test-slurm: $(VENV)/.test
	$(BIN)/python -m pytest -m "slurm and not slow and not gpu" $(TWO)

# More ways to lose a node, for which CI has no time.
test-slurm-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slurm and slow and not gpu" $(TWO)

# Break runs on purpose; CHAOS="--count 100 --kinds rank driver --seed 3", or --help.
chaos: $(VENV)/.test
	cd tests && HF_HUB_OFFLINE=1 $(abspath $(BIN))/python -m chaos $(CHAOS)

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m recipes.reference --check

docs: $(VENV)/.test
	$(BIN)/python -m recipes.reference

bench: $(VENV)/.samples $(VENV)/.bench
	$(BIN)/shoal samples smollm2-135m-instruct movie_reviews reviews_zh
	$(BIN)/python -m benchmarks

bench-gpu: $(VENV)/.gpu
	$(BIN)/python -m benchmarks.gpu

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "shoal needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras: installed again only when the facts of the project change.
$(VENV)/.%: $(BIN)/python $(FACTS)
	@echo "Installing shoal with '$*' into $(VENV); the first time takes some minutes"
	$(PIP) -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
