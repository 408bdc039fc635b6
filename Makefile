# Two commands do all set-up: `make demo` runs the main job, `make test` passes the tests.
# Both make a virtual environment in .venv (PYTHON chooses the interpreter, 3.11 or later) and need Debian's
# python3-venv or the like, and a network to install packages from.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test evidence lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.run
	$(BIN)/locum demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The whole of it, small and from nothing: a page of evidence and a report of labels, in build/evidence.
evidence: $(VENV)/.run
	$(BIN)/python -m bench.evidence quick build/evidence

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out build *.egg-info
