# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv from requirements.lock first.
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test lint format types layers workflow check fix lock check-data benchmarks reference

demo: .venv/ready
	@$(SNAKEMAKE) --configfile config/demo.yaml -- all
	@echo
	@$(BIN)/python -m oneshui.report.terminal results/tables/demo.md
	@echo
	@echo "The table: results/tables/demo.md. Its figures: results/figures/demo_*.pdf."
	@echo "A page that explains both, results/report.html: $(SNAKEMAKE) --configfile config/demo.yaml -- report"

# every test; `make check` is the quick part
test: .venv/ready
	$(BIN)/pytest -q -n 2 --dist loadfile

# read-only: format, lint, types, import layers, workflow lint
lint: .venv/ready
	@$(MAKE) --no-print-directory -j2 types format layers workflow

types:
	$(BIN)/mypy

format:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

layers:
	$(BIN)/lint-imports

workflow:
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

# one to four minutes on two cores: lint and the fast tests
check: lint
	$(BIN)/pytest -q -n 2 -m "not slow and not gpu and not realdata"

fix: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# counts of the raw data beside the published ones: make check-data CONFIG=config/config.yaml DATA=folder
CONFIG ?= config/config.yaml
DATA ?= data
check-data: .venv/ready
	$(SNAKEMAKE) --configfile $(CONFIG) --config data_root=$(DATA) -- check_data

# the JSON schema and the tables of keys and hyper-parameters, from the typed models
reference: .venv/ready
	$(BIN)/python -m oneshui.reference

# half an hour on two cores; writes the tables of docs/benchmarks.md and docs/scaling.md
benchmarks: .venv/ready
	$(BIN)/python -m benchmarks

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "oneshui needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# pins for Python 3.11 to 3.13 and every platform, with hashes
lock:
	uv pip compile --universal --python-version 3.11 --extra dev --extra slurm --extra workflow --generate-hashes --no-header --quiet --output-file requirements.lock pyproject.toml
