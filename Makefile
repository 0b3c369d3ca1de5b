# Every target sets up what it needs: a fresh machine with Python 3.11 and make is enough.
PYTHON ?= python3.11
VENV ?= .venv
TRIALS ?= 24
RUN_FLAGS ?=
TEST_WORKERS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-slow check links clean
.DELETE_ON_ERROR:

run: $(READY)  ## the default study: a Pareto front of accuracy, membership risk and compliance penalty
	$(BIN)/moo run reviews --trials $(TRIALS) $(RUN_FLAGS)

test: $(READY)  ## everything quick, in two processes of one thread each (TEST_WORKERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal

test-slow: $(READY)  ## browser, kills, notebooks, whole studies
	$(BIN)/python -m pytest -m "slow or browser" --durations=10

check: $(READY) links  ## ruff, mypy, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

links:  ## objectives/, models/ and studies/ as a type checker wants to see them: inside moo/
	@for room in objectives models studies; do ln -sfn ../$$room moo/$$room; done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -f moo/objectives moo/models moo/studies

# torch comes first and pinned, so that no other package pulls a build with gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
