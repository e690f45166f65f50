# Two commands for a fresh machine: `make demo` and `make test`. Everything goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Where bytecode is not written (PYTHONDONTWRITEBYTECODE), every start of `dyno` compiles all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test together lint format docs site pictures packages release image clean

demo: $(VENV)/.installed-cpu
	@echo "Write a small Llama, serve it, load it, tune it, prove it: about seven minutes on two cores."
	@$(BIN)/dyno tune --engine openvino --model tiny --quick

# Four workers for two cores, and mypy beside them: most of a test's time is spent waiting for servers.
test: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory -j 2 lint together
	$(BIN)/pytest -q -m alone $$(grep -rl --include='*.py' 'mark[.]alone' tests)

# The tests are collected once before: what is compiled there, four workers would each compile for themselves.
together: $(VENV)/.installed-dev
	@$(BIN)/pytest -q --collect-only -m "not alone" >/dev/null || $(BIN)/pytest -q --collect-only
	$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not alone"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.installed-dev
	$(BIN)/python -m llmdyno.cli.reference > docs/commands.md.new
	@mv docs/commands.md.new docs/commands.md
	$(BIN)/python -m llmdyno.cli.tables docs

# The docs site, in build/site: no network is needed to read it.
site: docs
	$(BIN)/python dev/docs_site.py

# One demo, recorded: its charts and the terminal are what README shows.
pictures: $(VENV)/.installed-cpu
	$(BIN)/python dev/install.py '.[cpu,pictures]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python dev/pictures.py

# dist/: the sdist and the wheels of this checkout, each tried in clean environments of every Python that is found.
packages: | $(BIN)/python
	$(BIN)/python dev/install.py '.[release]'
	$(BIN)/python dev/release.py --uncut

# The same, of a version: refused while CHANGELOG.md has changes under "Unreleased".
release: | $(BIN)/python
	$(BIN)/python dev/install.py '.[release]'
	$(BIN)/python dev/release.py

# llmdyno:VERSION by podman or docker, run as the Job of examples/kubernetes runs it.
image: $(VENV)/.installed-cpu
	$(BIN)/python dev/image.py --base '$(BASE)'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("llmdyno needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

BUILT_FROM := pyproject.toml hatch_build.py src/llmdyno/wire/_reading.c

$(VENV)/.installed-cpu: $(BUILT_FROM) | $(BIN)/python
	$(BIN)/python dev/install.py '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: $(BUILT_FROM) | $(BIN)/python
	$(BIN)/python dev/install.py '.[cpu,build,parquet,docs,dev]'
	@touch $@ $(VENV)/.installed-cpu

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
