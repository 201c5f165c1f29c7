# Each target sets up what it needs: `.venv` when it is missing or older than what it is made from.

PYTHON ?= python3
BIN := .venv/bin
PROTO_BIN := .venv-proto/bin
ADAPTERS_BIN := .venv-adapters/bin
ADAPTER_TESTS := tests/client/keras tests/client/lightning tests/client/optax tests/client/transformers \
	tests/client/torch/test_accelerate.py tests/e2e/frameworks
# Half of a test's time goes into waiting for other processes, so cores would idle with one tester each.
TESTERS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 2 )))
MEASURED := advice.latency advice.stalled advice.kernels meta.adapting training.signals advice.load advice.columns \
	advice.live_runs advice.ranks advice.processes daemon.startup meta.meta_mode daemon.loop_lag daemon.records dashboard.page_load

.DEFAULT_GOAL := help
.PHONY: help demo docs docs-links test test-slow test-adapters test-matrix lint audit format performance proto clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/.ready: pyproject.toml constraints.txt
	@test ! -L .venv || { echo '.venv is a link; making it anew would empty the folder behind it: remove the link' >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlrs needs Python 3.11 or newer")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-proto/.ready: proto/requirements.txt
	$(PYTHON) -m venv --clear .venv-proto
	$(PROTO_BIN)/pip install --quiet --disable-pip-version-check --requirement proto/requirements.txt
	touch $@

.venv-adapters/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv-adapters
	$(ADAPTERS_BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[adapters]'
	touch $@

demo: .venv/.ready ## Train two models in two processes, advised by one daemon; print a table and draw a picture.
	$(BIN)/python examples/demo.py

docs: .venv/.ready ## Build the documentation site in docs/_build/html, offline; every warning is an error.
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html

docs-links: .venv/.ready ## Check the links of the documentation to other sites. It needs the network, so CI does not run it.
	$(BIN)/sphinx-build --builder linkcheck --quiet docs docs/_build/links

test: lint ## Run lint, then every test that is not slow, in two processes for each core.
	$(BIN)/pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

test-slow: .venv/.ready ## Run the slow tests.
	$(BIN)/pytest -m slow

test-adapters: .venv-adapters/.ready ## Run the tests of the adapters with the real frameworks, in an environment of their own.
	MLRS_REQUIRED_FRAMEWORKS="accelerate lightning transformers keras jax optax" \
		$(ADAPTERS_BIN)/pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder -m 'slow or not slow' $(ADAPTER_TESTS)

test-matrix: .venv/.ready ## Run the client's tests with the oldest and newest protobuf, grpcio and Python, each in an environment.
	$(BIN)/python .ci/matrix.py

lint: .venv/.ready .venv-proto/.ready ## Check style, types, import layers, security, the contract and its stubs.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive bench cli client mlrs_core server train web
	$(MAKE) --no-print-directory audit
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/buf breaking proto/baseline.binpb --against proto
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python proto/generate.py --check

audit: .venv/.ready ## Check dependencies for known vulnerabilities, if the network allows it.
	$(BIN)/python .ci/audit.py

format: .venv/.ready ## Format the code, and fix what ruff can fix.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

performance: .venv/.ready ## Measure what advice costs against baselines, in about twenty minutes; write docs/performance/.
	set -e; for name in $(MEASURED); do $(BIN)/python -m performance.$$name; done
	$(BIN)/python -m performance.report

proto: .venv/.ready .venv-proto/.ready ## Generate the Python stubs of the contract, and the baseline for breaking changes.
	PATH="$(CURDIR)/$(PROTO_BIN):$$PATH" $(PROTO_BIN)/python proto/generate.py
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/buf build proto --exclude-source-info --output proto/baseline.binpb

clean: ## Remove everything that can be made again.
	rm -rf .venv .venv-adapters .venv-matrix .venv-proto performance/results demo-output docs/_build docs/reference/api .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
