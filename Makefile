# Every target sets up what it needs: uv into .uv when the machine has none, then a locked .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
ARGS ?=
UV := $(shell command -v uv || echo .uv/bin/uv)
RUN := .venv/bin/
# Programs start in a third of the time where the bytecode of all packages is kept, and tests start hundreds of them.
export UV_COMPILE_BYTECODE = 1
export PYTHONDONTWRITEBYTECODE =

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.uv/bin/uv:
	@python3 -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.5'

.venv/.synced: pyproject.toml uv.lock $(if $(findstring .uv/,$(UV)),.uv/bin/uv)
	@$(UV) sync --quiet --locked && touch $@

.PHONY: setup
setup: .venv/.synced ## Install everything into .venv

.PHONY: run
run: .venv/.synced ## Run the whole product on this machine, without a cluster
	@$(RUN)python -m examples.run $(ARGS)

# Tests wait more than they compute, so there are three processes for each core. Those that share a costly fixture stay
# in one (xdist_group).
PARALLEL := -n $(shell echo $$((3 * $$(getconf _NPROCESSORS_ONLN)))) --dist loadgroup

# Collecting rewrites the assertions of all test modules, once for a checkout. It goes on beside lint, of which the longest
# part has one thread, so that not each process of the run does it.
FAST := $(addprefix --ignore=tests/,e2e chart clients plant node judge)
.PHONY: test
test: .venv/.synced ## Lint, then the tests that need no control plane; ARGS="-k word" goes to pytest
	@$(RUN)pytest --collect-only -q -p no:cacheprovider $(FAST) >/dev/null 2>&1 & collecting=$$!; \
	  $(MAKE) --no-print-directory lint || { kill $$collecting; exit 1; }; wait $$collecting || true
	@$(RUN)pytest $(PARALLEL) $(FAST) -m "not long" $(ARGS)

.PHONY: long
long: .venv/.synced ## Tests that take long: faults under load, fuzzing, limits of memory; ARGS goes to pytest
	@$(RUN)pytest $(PARALLEL) $(FAST) -m long $(ARGS)

.PHONY: plant
plant: .venv/.synced ## Thousands of worlds and long runs of the decision in a closed loop; ARGS goes to pytest
	@$(RUN)pytest $(PARALLEL) tests/plant $(ARGS)

.PHONY: metric-table
metric-table: .venv/.synced ## Write what each metric costs on the Azure trace into docs/offloading.md
	@$(RUN)python -m tools.metric_table

# A copy of the project with its data path compiled as in the image.
COMPILED := build/compiled
$(COMPILED)/.built: .venv/.synced pyproject.toml $(shell find gateway hooks program -name '*.py')
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@tar -c --exclude=./.git --exclude=./.venv --exclude=./.uv --exclude=./build --exclude=__pycache__ . | tar -x -C $(COMPILED)
	@$(RUN)python -m tools.compiled $(COMPILED) && touch $@

# What the tests need beside the compiled packages, as it is now.
BESIDE := benchmarks examples faults tests tools

.PHONY: compiled
compiled: $(COMPILED)/.built ## Compile the gateway's data path as the image does, and run its tests on that
	@cd $(COMPILED) && rm -rf $(BESIDE) && cp -a $(addprefix $(CURDIR)/,$(BESIDE)) .
	@cd $(COMPILED) && $(abspath $(RUN))/python -c "import gateway.proxy as it; assert it.__file__.endswith('.so'), it"
	@cd $(COMPILED) && $(abspath $(RUN))/pytest $(PARALLEL) tests/unit/gateway tests/integration/gateway \
	  tests/integration/program $(ARGS)

.PHONY: image
image: .venv/.synced ## Build the image with docker or podman, else with buildah, into an archive
	@$(RUN)python -m tests.node.image

.PHONY: image-test
image-test: .venv/.synced ## Look at the image, and run the tests of what it has inside it; ARGS goes to pytest
	@$(RUN)pytest -q tests/node/test_image.py
	@$(RUN)python -m tests.node.image_tests $(PARALLEL) $(ARGS)

.PHONY: clients
clients: .venv/.synced ## Real clients at the gateway: Python, Node, Java, curl, Chromium; ARGS goes to pytest
	@$(RUN)pytest -n 2 --dist loadgroup tests/clients $(ARGS)

# With PROCESSES=2, each has control planes of its own and takes groups of tests in the order of tests/e2e/conftest.py.
PROCESSES ?= 0
PLANES = -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

.PHONY: picture
picture: .venv/.synced ## Take the picture of the page for the documentation, with Chromium
	@PAGE_PICTURE=1 $(RUN)pytest -q tests/clients/test_page.py -k picture

.PHONY: e2e
e2e: .venv/.synced ## Tests on a real control plane, built once from the Go module proxy; ARGS goes to pytest
	@$(RUN)python -m tests.e2e.binaries && $(RUN)pytest $(PLANES) tests/chart tests/e2e $(ARGS)

# A tool that one target needs is in an environment of its own, with the dependency group of that name.
build/tools-%/.synced: pyproject.toml uv.lock $(if $(findstring .uv/,$(UV)),.uv/bin/uv)
	@UV_PROJECT_ENVIRONMENT=build/tools-$* $(UV) sync --quiet --locked --only-group $* && touch $@
.PRECIOUS: build/tools-%/.synced
RELEASE := UV=$(UV) CYCLONEDX=$(CURDIR)/build/tools-release/bin/cyclonedx-py

.PHONY: judge
judge: .venv/.synced build/tools-judge/.synced build/tools-release/.synced ## Programs of others judge chart, workflows and release; ARGS goes to pytest
	@$(RUN)python -m tests.e2e.binaries helm kubeconform kube-score actionlint
	@$(RELEASE) ZIZMOR=$(CURDIR)/build/tools-judge/bin/zizmor $(RUN)pytest tests/judge $(ARGS)

.PHONY: docs
docs: .venv/.synced build/tools-docs/.synced ## Build the site of the documentation into build/site; a dead link is an error
	@NO_MKDOCS_2_WARNING=1 build/tools-docs/bin/mkdocs build --strict --clean

.PHONY: release
release: .venv/.synced build/tools-release/.synced ## Build all that is published into dist/; ARGS=--complete fails where something is left out
	@$(RUN)python -m tests.e2e.binaries helm
	@$(RELEASE) $(RUN)python -m tools.release $(ARGS)

# A node mounts and makes networks, so it needs root. NODE_KUBECONFIG names a cluster that is there already.
NEEDS_ROOT := if [ "$$(id -u)" != 0 ] && [ -z "$$NODE_KUBECONFIG" ]; then \
  echo "a real node needs root, or NODE_KUBECONFIG with the kubeconfig of a cluster"; exit 1; fi
NODE_PROGRAMS := [ -n "$$NODE_KUBECONFIG" ] || $(RUN)python -m tests.node.programs

.PHONY: node
node: .venv/.synced ## Tests in real pods, on a node on this machine or on the cluster of NODE_KUBECONFIG; ARGS goes to pytest
	@$(NEEDS_ROOT); $(NODE_PROGRAMS) && $(RUN)pytest tests/node $(ARGS)

.PHONY: node-short
node-short: .venv/.synced ## The short form of that: the image is as it should be, is installed, serves each way, is uninstalled
	@$(NEEDS_ROOT); $(NODE_PROGRAMS) && $(RUN)pytest $(if $(NODE_KUBECONFIG),,tests/node/test_image.py) \
	  tests/node/test_install.py tests/node/test_uninstall.py $(ARGS)

.PHONY: lint
lint: .venv/.synced ## ruff, mypy and the import contracts
	@$(RUN)ruff check --quiet .
	@$(RUN)ruff format --quiet --check .
	@$(RUN)mypy --no-error-summary
	@mkdir -p build; $(RUN)lint-imports --no-cache > build/lint-imports.log 2>&1 || { cat build/lint-imports.log; exit 1; }

.PHONY: generate
generate: .venv/.synced ## Write crds/ and the JSON schemas from the Python types
	@$(RUN)python -m tools.generate

.PHONY: bench
bench: $(COMPILED)/.built ## Measure what the image has against other proxies in the same run; writes build/bench.json
	@$(MAKE) --no-print-directory build/tools-bench/.synced || echo "Envoy cannot be had"
	@cp -r benchmarks tools examples $(COMPILED)/ && cd $(COMPILED) && \
	  ENVOY="$$(ls $(abspath build)/tools-bench/lib/python*/site-packages/envoy/_bin/envoy 2>/dev/null)" \
	  $(abspath $(RUN))/python -m benchmarks --output $(abspath build)/bench.json $(ARGS)

.PHONY: faults
faults: .venv/.synced ## Everything around the gateway fails under load, for some minutes; writes build/faults.json
	@$(RUN)python -m faults $(ARGS)

.PHONY: fairness
fairness: $(COMPILED)/.built ## Of four tenants one is hostile, to what the image has; writes build/fairness.json
	@cp -r faults tools $(COMPILED)/ && cd $(COMPILED) && \
	  $(abspath $(RUN))/python -m faults.fairness --output $(abspath build)/fairness.json $(ARGS)

.PHONY: clean
clean: ## Remove what the other targets made
	@rm -rf .venv .uv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
