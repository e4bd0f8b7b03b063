# Two commands matter: `make demo` and `make test`. Both set up all they need in .venv.

.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3.13 $$HOME/.pyenv/versions/3.13*/bin/python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
OUT ?= out
ARCHITECTURE ?= x86_64

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: setup
setup: $(READY) ## make .venv with everything pinned

# What a job here needs, and no more: the first command of a fresh clone waits for it. Of aws-sam-cli it takes the runtime
# emulator alone, so none of its dependencies. Made anew when any lock changes, so that nothing dropped stays behind.
$(DEMO): requirements/demo.txt requirements/dev.txt pyproject.toml local/pyproject.toml
	@test -n "$(PYTHON)" || { echo "structureflow needs CPython 3.11 or later with venv (3.13 is the deployed one)" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) (half a minute, once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@# the locks are complete: there is nothing to resolve, which takes an older pip minutes
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		-r requirements/demo.txt "$$(grep '^aws-sam-cli==' requirements/dev.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . --editable ./local
	@touch $(DEMO)

$(READY): $(DEMO)
	@echo "Adding what tests, benches and builds need (half a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements/dev.txt
	@touch $(READY)

.PHONY: shell
shell: $(DEMO) ## open a shell that finds the command structureflow
	@PATH="$(CURDIR)/$(BIN):$$PATH" $${SHELL:-/bin/sh}

.PHONY: demo
demo: $(DEMO) ## run a whole job here: make demo [VIDEO=clip.mp4] [JOB=job.json] [OUT=folder]
	@$(BIN)/structureflow demo --cloud --out "$(OUT)" $(if $(VIDEO),--video "$(VIDEO)") $(if $(JOB),--job "$(JOB)")

.PHONY: test
test: $(READY) ## lint, types, and every test that needs no deployed stack
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

.PHONY: chromium
chromium: ## install the browser that the tests of pages need, where there is none (Debian, Ubuntu; as root)
	@for name in chromium chromium-browser google-chrome chrome; do command -v $$name >/dev/null 2>&1 && exit 0; done; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		chromium fonts-liberation fonts-dejavu-core >/dev/null

.PHONY: nightly
nightly: $(READY) ## the tests of properties with a random seed; what fails prints how to repeat it: make nightly [SEED=7]
	$(BIN)/pytest -n 2 --dist worksteal --hypothesis-profile=nightly $(if $(SEED),--hypothesis-seed=$(SEED)) \
		$(shell grep -rlE '^(from|import) hypothesis' tests --include='test_*.py')

SEEDS ?= 200

.PHONY: faults
faults: $(READY) ## jobs, runs of one job, and caches under faults by seed: make faults [SEEDS=2000] or [SEED=17]
ifdef SEED
	SEED=$(SEED) $(BIN)/pytest -s tests/faults/test_whole_jobs.py -k one_seed
else
	JOB_SEEDS=$(SEEDS) INTERLEAVINGS=$(SEEDS) SEEDS=$(shell expr $(SEEDS) \* 5 / 2) $(BIN)/pytest -n 2 --dist worksteal --timeout 0 \
		tests/faults tests/functional/test_job_interleavings.py \
		tests/property/test_frames_model.py tests/property/test_flow_archive_model.py
endif

.PHONY: lint
lint: $(READY) ## format and lint, mending what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(READY) ## measure against the original design: bench/results.json, a table, a plot
	$(BIN)/python -m bench

.PHONY: sam-build
sam-build: $(READY) ## build what sam deploy deploys (needs Docker): make sam-build [ARCHITECTURE=arm64]
	@$(BIN)/python -m structureflow_local.sam build --architecture $(ARCHITECTURE)

.PHONY: media-packages
media-packages: $(READY) ## install what functions/Dockerfile copies, to build the media image by hand
	@$(BIN)/python -m structureflow_local.sam packages --architecture $(ARCHITECTURE)

.PHONY: sam-local
sam-local: $(READY) ## run every function in Lambda's container on its golden event (needs Docker)
	@$(BIN)/python -m structureflow_local.sam local

.PHONY: smoke
smoke: $(READY) ## run two tiny jobs on a deployed stack and print seconds, cost and cold starts: make smoke STACK=structureflow
	@test -n "$(STACK)" || { echo "make smoke: say which stack, as in make smoke STACK=structureflow" >&2; exit 2; }
	@$(BIN)/python -m structureflow_local.smoke --stack "$(STACK)" $(if $(REGION),--region "$(REGION)")

.PHONY: audit
audit: .venv-audit/.ready ## check the template for security findings (checkov; its exceptions are in .checkov.yaml)
	@.venv-audit/bin/checkov --config-file .checkov.yaml --file template.yaml

.venv-audit/.ready: requirements/audit.txt
	@rm -rf .venv-audit
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audit.txt
	@touch $@

RUNS ?= 100000

.PHONY: fuzz
fuzz: .venv-fuzz/.ready ## fuzz what reads bytes from outside, in bounded processes: make fuzz [RUNS=1000000]
	@.venv-fuzz/bin/python -m fuzz --runs $(RUNS)

.venv-fuzz/.ready: requirements/dev.txt requirements/fuzz.txt pyproject.toml local/pyproject.toml
	@rm -rf .venv-fuzz
	@$(PYTHON) -m venv .venv-fuzz
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps \
		-r requirements/dev.txt -r requirements/fuzz.txt
	@.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . --editable ./local
	@touch $@

.PHONY: clean
clean: ## remove what make made
	rm -rf $(VENV) .venv-raft .venv-audit .venv-fuzz fuzz/found .aws-sam .structureflow out .mypy_cache .ruff_cache .pytest_cache .hypothesis

# RAFT needs PyTorch, which nothing else here does: it has an environment of its own. 3.11 first, for which CPU builds
# of PyTorch are the most widespread; any Python from 3.11 on will do.
RAFT_PYTHON ?= $(shell for p in python3.11 $$HOME/.pyenv/versions/3.11*/bin/python3.11 "$(PYTHON)"; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v $$p; break; }; done)
RAFT_VENV := .venv-raft
RAFT_READY := $(RAFT_VENV)/.ready

.PHONY: setup-raft
setup-raft: $(RAFT_READY) ## make .venv-raft: everything pinned, and PyTorch

$(RAFT_READY): requirements/dev.txt requirements/raft.txt pyproject.toml local/pyproject.toml
	@test -n "$(RAFT_PYTHON)" || { echo "RAFT needs CPython 3.11 or later with venv" >&2; exit 1; }
	@echo "Setting up $(RAFT_VENV) with $(RAFT_PYTHON) (some minutes, once)"
	@rm -rf $(RAFT_VENV)
	@$(RAFT_PYTHON) -m venv $(RAFT_VENV)
	@$(RAFT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements/dev.txt
	@# as constraints: a CPU build of the pinned PyTorch is welcome, and needs none of the CUDA packages
	@$(RAFT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		-c requirements/raft.txt torch torchvision
	@$(RAFT_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable . --editable ./local
	@touch $(RAFT_READY)

.PHONY: test-raft
test-raft: $(RAFT_READY) ## the tests of RAFT, on the CPU with random weights
	$(RAFT_VENV)/bin/pytest tests/raft

.PHONY: has-cpu-torch
has-cpu-torch: # whether pip offers the pinned PyTorch without its gigabytes of CUDA packages
	@$(RAFT_PYTHON) -m pip install --dry-run --quiet --no-deps --ignore-installed --report - \
		-c requirements/raft.txt torch 2>/dev/null | grep -q '+cpu'
