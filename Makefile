# make demo         see it work, with nothing set up           make test    all tests, a few minutes
# make lint         style, format, types                       make prove   the slow proofs, in full
# make bench        what brokering costs, in figures           make clean   remove what this file made
#   (ARGS=--peers: beside others' gateways)              make profile where the time of one brokered call goes
# make bench-growth the same after years of history         make soak    memory over half an hour of calls
# make bench-units  what a call's two transactions cost the processor
# make bench-year   a start with a year of 1,000 agents   make bench-rules  what the rules cost a call
# make conformance  the official MCP suite, direct and through Haltline
#
# PYTHON=python3.11 names an interpreter, WORKERS=4 the number of test processes, ARGS=... more for pytest.

PYTHON  ?= python3
WORKERS ?= auto
VENV    := .venv
TOOLS   := .tools
BIN     := $(VENV)/bin
PYTEST  := $(BIN)/python -m pytest

.PHONY: demo test lint format bench bench-growth bench-units bench-year bench-rules soak profile prove prove-short conformance clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/haltline demo $(ARGS)

test: $(VENV)/.installed-dev $(TOOLS)/.installed
	$(PYTEST) -n $(WORKERS) --ignore=tests/proofs $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/run.py --write $(ARGS)

bench-growth: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/growth.py $(ARGS)

soak: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/soak.py $(ARGS)

bench-units: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python tests/bench/units.py $(ARGS)

bench-year: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python tests/bench/year.py $(ARGS)

bench-rules: $(VENV)/.installed-dev
	PYTHONPATH=tests $(BIN)/python tests/bench/rules.py $(ARGS)

profile: $(VENV)/.installed-dev
	$(BIN)/python tests/bench/profile_call.py --flame profile.svg $(ARGS)

prove: $(VENV)/.installed-dev $(TOOLS)/.installed
	HALTLINE_PROOFS=full HYPOTHESIS_PROFILE=proofs $(PYTEST) -s tests/proofs tests/test_ledger_machine.py tests/test_ledger_machine_calls.py $(ARGS)

prove-short: $(VENV)/.installed-dev $(TOOLS)/.installed
	HALTLINE_PROOFS=short $(PYTEST) -s tests/proofs $(ARGS)

conformance: $(VENV)/.installed-dev $(TOOLS)/.conformance
	PYTHONPATH=tests $(BIN)/python -m conformance.run $(TOOLS) $(ARGS)
	PYTHONPATH=tests $(BIN)/python -m conformance.run $(TOOLS) --over stdio $(ARGS)

clean:
	rm -rf $(VENV) $(TOOLS) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up happens again only when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml .ci/venv
	@echo "Setting up $(VENV) (once) ..."
	@.ci/venv $(VENV) $(PYTHON)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Adding what the tests need to $(VENV) (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(TOOLS)/.installed: .ci/third-party
	@.ci/third-party $(TOOLS)
	@mkdir -p $(TOOLS) && if [ -d $(TOOLS)/node_modules ]; then touch $@; fi

$(TOOLS)/.conformance: .ci/conformance pyproject.toml
	@echo "Fetching the conformance suite into $(TOOLS) (once) ..."
	@.ci/conformance $(TOOLS) $(BIN)/python
