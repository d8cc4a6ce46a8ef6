# Two commands set everything up: `make demo` and `make test`. CI calls the same.
PYTHON ?= python3
PROFILE ?= full
# index of PyTorch builds to take torch from, CPU or CUDA; pip's own index when empty
TORCH_INDEX ?=
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test check unit

setup: $(STAMP)

# torch first and pinned: any other order may pull a CUDA build of several gigabytes
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one: make setup PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep -o '^torch==[^ ]*' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/tunewright run examples/text2sql/recipe.yaml --profile $(PROFILE)

test: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 40 --durations-min 8 -m "not real"

unit: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not real and not integration"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests/repo
