# The targets of this project; CI uses the same. Each sets up what it needs first, once. `make` alone lists them.
#
# Variables, set as `make TARGET NAME=value` or in the environment:
#   PYTHON                           interpreter for a new .venv (3.11 or newer)
#   POLYMODAL_HOST, POLYMODAL_PORT   where `make serve` listens; so do all settings of .env.example
#   FUZZ_SECONDS                     how long `make fuzz` runs
#   SOAK_SECONDS                     how long `make soak` runs
#   EXTRAS                           of `make serve` and `make image`: extras of pyproject.toml
#   SOURCE, SOURCE_DATE_EPOCH        of `make image`: address of the source, time of the image
#   PIP_EXTRA_INDEX_URL and others   pip's own

PYTHON ?= python3
DOCKER ?= docker
BIN := .venv/bin
PYTEST_PARALLEL = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
SOAK_SECONDS ?= 600
AXE := 4.14.1
DATA := data/illustrations
RUN := runs/illustrations
BUNDLE := model/bundles/illustrations
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Time of the image: when its revision was committed, not when it was built, so that equal revisions give equal images.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
EXTRAS ?=
COMMA := ,
BUNDLES = illustrations$(patsubst %/SHA256SUMS,$(COMMA)%,$(wildcard bundles/*/SHA256SUMS))
SOURCE ?= unknown

export PYTHON

.DEFAULT_GOAL := help
.NOTPARALLEL: # the targets share one .venv
.PHONY: help serve docs test test-documents test-all test-imagemagick test-redis test-generated-client test-clients test-browser screenshots test-observability test-compose contract fuzz check fix data train ablation bench bench-peers chaos soak image image-torch settings sbom audit constraints setup clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target does; do \
		printf '  make %-21s %s\n' "$$target" "$$does"; done

serve: .venv/serve.ok ## set up, then serve the embedded model and those in bundles/ on http://127.0.0.1:8000; EXTRAS=speech adds extras
	@test -z "$(EXTRAS)" || { mkdir -p build; $(BIN)/python scripts/serve_requirements.py "$(EXTRAS)" > build/extras.txt && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --requirement build/extras.txt; }
	@export POLYMODAL_BUNDLES="$${POLYMODAL_BUNDLES:-$(BUNDLES)}"; exec $(BIN)/polymodal serve

test: .venv/dev.ok ## set up, then run the tests without the long ones, on up to four cores
	$(PYTEST_PARALLEL) -m 'not slow'

docs: .venv/serve.ok ## build the documents as a site in build/site, and check its links
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

test-all: .venv/dev.ok ## run all tests, also the long ones: documents, examples, export, training end to end, deployment files
	$(PYTEST_PARALLEL)

test-imagemagick: .venv/dev.ok ## compare headers of images with what ImageMagick reads (apt-get install imagemagick)
	IMAGEMAGICK_TESTS=1 $(BIN)/python -m pytest -rs tests/model/modalities/image/test_imagemagick.py

test-documents: .venv/dev.ok ## run the documents and examples, slow blocks too, and list what was run, checked or skipped, and why
	SLOW_DOCUMENTS=1 $(BIN)/python -m pytest -rP tests/test_documents.py tests/test_examples.py

test-redis: .venv/dev.ok ## run the tests of rate limits in Redis (needs redis-server)
	REDIS_TESTS=1 $(BIN)/python -m pytest tests/app/access/test_redis.py

test-observability: .venv/dev.ok ## test the alerts with a real Prometheus while the service breaks (3 minutes; needs prometheus)
	OBSERVABILITY_TESTS=1 $(BIN)/python -m pytest tests/deploy/test_rules.py tests/deploy/test_prometheus.py

test-compose: .venv/dev.ok ## test `docker compose up` on a clean checkout (needs Docker with compose)
	COMPOSE_TESTS=1 $(BIN)/python -m pytest tests/deploy/test_compose.py

test-browser: .venv/browser.ok ## run the tests of the page in a browser (needs chromium, and npm for axe-core)
	@command -v npm >/dev/null && npm install --silent --no-package-lock --no-save --prefix build/browser axe-core@$(AXE) \
		|| echo 'axe-core could not be installed: its tests are skipped'
	BROWSER_TESTS=1 $(BIN)/python -m pytest tests/browser

screenshots: .venv/browser.ok ## draw the images of docs/images again: the page with the embedded model (needs chromium)
	$(BIN)/python -m scripts.screenshots

contract: .venv/dev.ok ## send the service 1000 generated requests for each operation of its OpenAPI document
	CONTRACT_EXAMPLES=1000 $(BIN)/python -m pytest --timeout 1800 tests/app/api/test_contract.py

test-generated-client: .venv/dev.ok ## test clients that common generators make of the OpenAPI document (needs the network, and npm for TypeScript)
	$(BIN)/python -m tests.generated.run

test-clients: .venv/dev.ok ## test clients of other APIs, such as OpenAI's, and write docs/compatibility.md (needs the network and npm)
	$(BIN)/python -m tests.clients.run

fuzz: .venv/dev.ok ## fuzz everything that reads uploads, for FUZZ_SECONDS=300 in all (Linux on x86-64); crashes are written to build/fuzz
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check \
		--constraint constraints.txt --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.run

check: .venv/dev.ok ## check format, lint and types, as CI does
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

fix: .venv/dev.ok ## format, and fix what the linter can fix
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

data: .venv/dev.ok ## build the default data set (about 350 MB of downloads)
	$(BIN)/polymodal data illustrations --out $(DATA) --cache data/cache

train: .venv/dev.ok ## train the embedded model on that data set and align it (40 minutes on two cores), and replace it
	$(BIN)/polymodal train $(DATA) --preset align --pairs $(DATA)/pairs.csv --out $(RUN) --name illustrations --cache data/cache/pretrained
	rm -rf $(BUNDLE)
	cp -R $(RUN) $(BUNDLE)

ablation: .venv/dev.ok ## compare fusions and presets over three seeds (hours), and write the table of docs/training.md
	$(BIN)/python scripts/ablation.py $(DATA) --table docs/training.md

bench: .venv/dev.ok ## measure speed and memory, next to the machine's limit and other frameworks (half an hour; needs wrk)
	$(BIN)/python -m benchmarks.run

bench-peers: ## install the benchmark's other frameworks, each into an environment of its own (several GB)
	PYTHON="$(PYTHON)" benchmarks/peers/setup.sh

chaos: .venv/dev.ok ## break workers, disks, clocks and clients under load, and count failed requests (2 minutes)
	$(BIN)/python -m benchmarks.chaos

soak: .venv/dev.ok ## run mixed load for SOAK_SECONDS (600), and check that memory, descriptors, threads and latency don't grow
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

image image-torch: TARGET = $(if $(filter image-torch,$@),torch,serve)
image image-torch: TAG = $(if $(filter image-torch,$@),-torch)
image: ## build the container image polymodal; EXTRAS=redis,otel adds extras
image-torch: ## build polymodal:…-torch with PyTorch, for GPUs and for bundles without graphs
image image-torch:
	$(DOCKER) build --target $(TARGET) --tag polymodal:latest$(TAG) --tag polymodal:$(VERSION)$(TAG) \
		--build-arg EXTRAS="$(EXTRAS)" --build-arg PIP_EXTRA_INDEX_URL \
		--build-arg VERSION=$(VERSION) \
		--build-arg REVISION="$$(git rev-parse HEAD)" \
		--build-arg SOURCE="$(SOURCE)" \
		--build-arg SOURCE_DATE_EPOCH="$(SOURCE_DATE_EPOCH)" \
		--build-arg CREATED="$$($(PYTHON) -c 'import sys, time; print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(sys.argv[1]))))' \
			$(SOURCE_DATE_EPOCH))" .

settings: .venv/serve.ok ## write the table of settings in docs/operations.md from app/settings.py
	$(BIN)/python scripts/settings_reference.py

sbom: ## write dist/polymodal.cdx.json: every package that serving installs, as CycloneDX
	@PYTHON="$(PYTHON)" scripts/supply.sh sbom

audit: ## look up the versions of constraints.txt in the advisories of the Python Package Index
	@PYTHON="$(PYTHON)" scripts/supply.sh audit

constraints: ## write constraints.txt with current versions; WITH='torch==2.13.0 …' narrows the choice
	$(PYTHON) scripts/constraints.py $(WITH)

setup: .venv/dev.ok ## set up only: everything that the other targets need

clean: ## remove .venv and all build results, but no data and no models
	rm -rf .venv build dist *.egg-info client/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find app model tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv has two levels. Serving needs no torch, so its set-up takes a fraction of the time.
.venv/serve.ok: pyproject.toml constraints.txt scripts/serve_requirements.py
	@scripts/setup.sh serve

.venv/dev.ok: pyproject.toml client/pyproject.toml constraints.txt
	@scripts/setup.sh dev

.venv/browser.ok: .venv/dev.ok
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[browser]'
	@touch $@
