# Everything happens in .venv and build/; `make clean` removes both.
#
#   make demo        run the demonstration           make lint   check the style
#   make test        run the tests                   make wheel  build dist/*.whl
#   make test-slow   run those that take minutes     make build  compile only
#   make bench       compare with stock TensorFlow   make clean
#
# ARGS are passed on: make test ARGS="-k gemm", make bench ARGS="--batch 1".

# The first Python that TensorFlow supports.
SUITABLE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; \
	do $$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && break; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet
SOURCES := $(shell find csrc -type f) setup.py kconv/__init__.py

# Without TensorFlow's greetings.
demo bench: export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: build demo test test-slow lint bench wheel clean

demo: build
	$(BIN)/kconv demo $(ARGS)

test: build
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: build
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: build
	$(BIN)/kconv bench layers $(ARGS)

lint: $(VENV)/linter
	$(BIN)/pre-commit run --all-files $(ARGS)

wheel: $(VENV)/created
	rm -rf build/lib* build/bdist*
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

build: $(VENV)/built

clean:
	rm -rf $(VENV) build dist kconv_demo *.egg-info kconv/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/created:
	@test -n "$(PYTHON)" || { echo "kconv needs Python 3.10 to 3.13."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade "pip>=25.1"
	@touch $@

$(VENV)/linter: pyproject.toml | $(VENV)/created
	$(PIP) --group lint
	@touch $@

$(VENV)/installed: pyproject.toml | $(VENV)/created
	@echo "Installing TensorFlow and the tools for tests: this takes minutes once."
	$(PIP) --group build --group test
	@echo "Compiling kconv."
	$(PIP) --no-build-isolation --editable ".[demo,bench]"
	@touch $@

# Compiles only what changed.
$(VENV)/built: $(SOURCES) | $(VENV)/installed
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@
