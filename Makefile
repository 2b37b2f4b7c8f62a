# Every target works on a fresh machine with Python 3.11+ and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
WORKERS ?= 2  # processes of the tests
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo walk test integration peers check fix bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[teacher,review,train,serve,excel,rank,dev]'
	@touch $@ $(VENV)/.core

$(VENV)/.peers: $(VENV)/.dev
	$(PIP) -e '.[peers]'
	@touch $@

demo: $(VENV)/.core  ## the main job on a simulated shop, to a report; no network model, no key
	$(BIN)/piar init demo --example shop --pairs 2000 --force
	$(BIN)/piar evolve -C demo --rounds 4 --accept auto
	$(BIN)/piar score -C demo --split test
	$(BIN)/piar show diff -C demo
	$(BIN)/piar report -C demo

walk: $(VENV)/.dev  ## the whole story: guideline, labels, students, a server, the week after; stopped, it goes on
	$(BIN)/python -m benchmarks.walk walk

check: $(VENV)/.dev  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The second run looks through the files with such tests alone: half the time of looking is saved.
test: check  ## checks and the fast tests, those of models in fp32 and in bf16
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile
	PIAR_PRECISION=bf16 $(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m 'precision and not integration' \
	    $$(grep -rl 'mark\.precision' tests --include '*.py')

# In the order of the files: sorted by their number of tests, the longest walks would come last.
integration: $(VENV)/.dev  ## real servers, real browser, long walks; PIAR_SOAK=1: kills and loads in thousands more
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m integration --timeout 1800 --durations 15

peers: $(VENV)/.peers  ## our figures against those of other libraries: TRL, cleanlab, datasets
	$(BIN)/pytest -q -m peers --timeout 1800

bench: $(VENV)/.peers  ## figures of the README, as ratios in one run
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo walk .mypy_cache .ruff_cache .pytest_cache .hypothesis
