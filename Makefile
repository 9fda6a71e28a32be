# The words of this project; CI uses the same. Each sets up what it needs first, once: `make` alone lists them.
#
# Variables, given as `make WORD NAME=value` or in the environment:
#   PYTHON                           interpreter for a new .venv (3.11 or newer)
#   POLYMODAL_HOST, POLYMODAL_PORT   where `make serve` listens; so do all settings of .env.example
#   FUZZ_SECONDS                     how long `make fuzz` looks for crashes
#   SOAK_SECONDS                     how long `make soak` runs
#   PIP_EXTRA_INDEX_URL and others   pip's own

PYTHON ?= python3
DOCKER ?= docker
BIN := .venv/bin
SOAK_SECONDS ?= 600
DATA := data/illustrations
RUN := runs/illustrations
BUNDLE := model/bundles/illustrations
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL: # the words share one .venv
.PHONY: help serve docs test test-documents test-redis contract fuzz check fix data train ablation bench bench-peers chaos soak image sbom audit constraints setup clean

help: ## list these words
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r word does; do \
		printf '  make %-12s %s\n' "$$word" "$$does"; done

serve: .venv/serve.ok ## set up, then serve the embedded model on http://127.0.0.1:8000 until Ctrl-C
	@exec $(BIN)/polymodal serve

test: .venv/dev.ok ## set up, then run all tests, on as many as four cores
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

docs: .venv/serve.ok ## make the site of all documents in build/site, and check its links
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

test-documents: .venv/dev.ok ## do all that the documents say, slow blocks too, and list what was run, checked or skipped, and why
	SLOW_DOCUMENTS=1 $(BIN)/python -m pytest -rP tests/test_documents.py tests/test_examples.py

test-redis: .venv/dev.ok ## run the tests of rate limits in Redis (needs redis-server)
	REDIS_TESTS=1 $(BIN)/python -m pytest tests/app/test_redis.py

contract: .venv/dev.ok ## ask the service 1000 generated requests for each operation of its OpenAPI document
	CONTRACT_EXAMPLES=1000 $(BIN)/python -m pytest --timeout 1800 tests/app/test_contract.py

fuzz: .venv/dev.ok ## fuzz what reads uploads, for FUZZ_SECONDS=300 in all (Linux on x86-64); crashes are written to build/fuzz
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run

check: .venv/dev.ok ## format, lint and types, as CI wants them
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

fix: .venv/dev.ok ## format, and repair what the linter can repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

data: .venv/dev.ok ## build the default data set (about 350 MB of downloads)
	$(BIN)/polymodal data illustrations --out $(DATA) --cache data/cache

train: .venv/dev.ok ## train the embedded model on that data set (20 minutes on two cores), and put it in place
	$(BIN)/polymodal train $(DATA) --preset pretrained --out $(RUN) --name illustrations --cache data/cache/pretrained
	rm -rf $(BUNDLE)
	cp -R $(RUN) $(BUNDLE)

ablation: .venv/dev.ok ## compare fusions and presets over three seeds (hours), and write the table of docs/training.md
	$(BIN)/python scripts/ablation.py $(DATA) --table docs/training.md

bench: .venv/dev.ok ## measure speed and memory against the machine's limit and installed peers (half an hour; needs wrk)
	$(BIN)/python -m benchmarks.run

bench-peers: ## install the peers of the benchmark, each into an environment of its own (several GB)
	PYTHON="$(PYTHON)" benchmarks/peers/setup.sh

chaos: .venv/dev.ok ## break workers, disks, clocks and clients under load, and count what clients notice (2 minutes)
	$(BIN)/python -m benchmarks.chaos

soak: .venv/dev.ok ## everything at once for SOAK_SECONDS (600), and whether memory, descriptors, threads or latency grew
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

image: ## build the container image polymodal
	$(DOCKER) build --tag polymodal:latest --tag polymodal:$(VERSION) \
		--build-arg VERSION=$(VERSION) \
		--build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" .

sbom: ## write dist/polymodal.cdx.json: every package that serving installs, as CycloneDX
	@PYTHON="$(PYTHON)" scripts/supply.sh sbom

audit: ## look the exact versions of constraints.txt up in the advisories of the Python Package Index
	@PYTHON="$(PYTHON)" scripts/supply.sh audit

constraints: ## write constraints.txt anew; WITH='torch==2.13.0 …' narrows the choice
	$(PYTHON) scripts/constraints.py $(WITH)

setup: .venv/dev.ok ## set up only: everything that the other words need

clean: ## remove .venv and everything that was made from the sources, but no data and no models
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find app model tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# The two tiers of .venv. Serving needs no torch, and so is set up in a fraction of the time.
.venv/serve.ok: pyproject.toml constraints.txt scripts/serve_requirements.py
	@scripts/setup.sh serve

.venv/dev.ok: pyproject.toml constraints.txt
	@scripts/setup.sh dev
