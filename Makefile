# `make demo` and `make test` need git, make and Python 3.10 or newer. They install what else they
# need (packages into .venv, darknet with apt), or say what is missing.

.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
SOURCES := oiyolo tests notebooks benchmarks deploy docs/conf.py docs/_extensions

.PHONY: help demo test test-slow check format lint types setup darknet cron browser docs notebooks lock clean

help:
	@echo "make demo       the whole pipeline on a small drawn Open Images (about three minutes)"
	@echo "make test       the tests, except the slow ones"
	@echo "make test-slow  the slow tests, and the self-check of a benchmark"
	@echo "make check      format, lint, types, then the tests"
	@echo "make docs       the documentation site, in build/site/ (Python 3.11 or newer)"
	@echo "make notebooks  the outputs of the notebooks, from a run on drawn images (minutes)"
	@echo "make format     format the code"
	@echo "make setup      .venv with the package and all tools"
	@echo "make lock       update requirements-ci.txt"
	@echo "make clean      remove .venv, caches and the demo"

demo: $(VENV)/.package
	@$(BIN)/python -c "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)" || tools/need-darknet
	$(BIN)/oiyolo demo

test: setup darknet
	$(BIN)/python -m pytest -q -n auto -m "not slow"

test-slow: setup darknet cron browser
	$(BIN)/python -m pytest -q -m slow
	$(BIN)/python benchmarks/gpu.py --self-check

check: setup
	$(BIN)/ruff format --check $(wildcard $(SOURCES))
	$(MAKE) --no-print-directory lint types test

# The reference of the commands is written first; a test fails if it was not committed.
docs: setup
	@rm -rf build/site
	$(BIN)/python docs/_extensions/command_reference.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet --builder html \
		--doctree-dir build/doctrees docs build/site
	@echo "Open build/site/index.html"

# Their outputs are committed, so that they can be read on the web.
notebooks: setup darknet
	$(BIN)/python -m tests.support.notebooks

format: setup
	$(BIN)/ruff format $(wildcard $(SOURCES))
	$(BIN)/ruff check --fix $(wildcard $(SOURCES))

lint: setup
	$(BIN)/ruff check $(wildcard $(SOURCES))

# Without PyTorch's types, the engine that uses it cannot be checked.
types: setup
	$(BIN)/mypy $(if $(wildcard $(VENV)/lib/*/site-packages/torch),,--exclude 'torch_engine|training_parity|engine_parity|torch_loader|_bare_step')

setup: $(VENV)/.tools

darknet:
	@tools/need-darknet

# The test that needs it is skipped where it cannot be installed.
cron:
	-@tools/need-cron

# Without it, the tests of pages are skipped.
browser:
	-@tools/need-browser

# The demo needs only the package, with the newest dependencies, as users get them.
$(VENV)/.package: pyproject.toml tools/make-venv
	@tools/make-venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

# Tests and tools are pinned, so that a check gives the same result on every machine.
$(VENV)/.tools: pyproject.toml requirements-ci.txt tools/make-venv
	@tools/make-venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements-ci.txt \
		--editable . --group test --group lint --group docs
	@touch $@ $(VENV)/.package

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
		--upgrade --group test --group lint --group docs --output-file requirements-ci.txt pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis oiyolo-demo build dist
