# `make demo` and `make test` need Python 3.11 or later and nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
export HF_HUB_OFFLINE ?= 1

.PHONY: demo serve test test-system bench bench-peers bench-migration check check-static format requirements init-sql clean

demo: $(VENV)/.installed
	@$(RUN) synapse.py index docs examples/documents
	@$(RUN) -m examples.demo

# The chat service: API, page and MCP. SERVE takes options, as in `make serve SERVE="--port 9000"`.
serve: $(VENV)/.installed-serve
	@$(RUN) synapse.py serve $(SERVE)

test: $(VENV)/.installed-dev
	$(RUN) -m pytest -m "not system and not slow" -n 2 --dist loadfile

# What needs more than requirements: psql, a pooler and a browser, which .ci/run installs, and servers of several versions of Chroma, each with
# an environment of its own; there a skip is a failure. And what takes long; three at a time, as most of it is waiting.
test-system: $(VENV)/.installed-dev $(VENV)/.installed-ray
	$(RUN) tests/fixtures/chroma/make.py --environments .venv-servers 0.4.24 0.5.23 1.0.20 1.5.9
	SYNAPSE_CHROMA_ENVS=$(CURDIR)/.venv-servers $(RUN) -m pytest -m "system or slow" -n 3 --dist loadfile

# The store's figures beside the plain store's. BENCH takes options, as in `make bench BENCH="--scifact FOLDER --only dense"`.
bench: $(VENV)/.installed-dev
	$(RUN) -m benchmarks.all $(BENCH)

bench-peers: $(VENV)/.installed-dev .venv-peers/.installed
	$(RUN) -m benchmarks.peers $(BENCH)

bench-migration: $(VENV)/.installed-dev .venv-chroma/.installed
	$(RUN) -m benchmarks.migrating --python .venv-chroma/bin/python $(BENCH)

check: check-static test

check-static: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# The pins, compiled from the reasons.
COMPILE := $(VENV)/bin/pip-compile -q --strip-extras --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
requirements: | $(VENV)/bin/python
	$(VENV)/bin/pip install -q pip-tools uv
	$(COMPILE) -o requirements.txt requirements.in
	$(VENV)/bin/uv pip compile -q --no-header -o requirements-serve.txt requirements-serve.in
	$(COMPILE) -o requirements-dev.txt requirements-dev.in
	$(COMPILE) -o requirements-migration.txt requirements-migration.in
	$(VENV)/bin/uv pip compile -q --no-header -o requirements-ray.txt requirements-ray.in
	cd deploy/vercel && ../../$(VENV)/bin/uv pip compile -q --no-header --python-version 3.12 -o requirements-vercel.txt requirements-vercel.in
	@sed -i 's/^\(torch==[0-9.]*\)+cpu$$/\1/' requirements.txt requirements-dev.txt requirements-migration.txt  # which build is the index's to say

# The schema written out, for Docker and for Supabase, after a change of it.
init-sql: $(VENV)/.installed
	$(RUN) -m deploy.write_init_sql
	$(RUN) -m deploy.write_supabase

clean:
	rm -rf $(VENV) .venv-image .venv-peers .venv-chroma .venv-servers .synapse .synapse-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

.venv-peers/.installed: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/pip install -qq --disable-pip-version-check -r benchmarks/requirements-peers.txt
	@touch $@

.venv-chroma/.installed: benchmarks/requirements-chroma.txt
	$(PYTHON) -m venv .venv-chroma
	@.venv-chroma/bin/pip install -qq --disable-pip-version-check -r benchmarks/requirements-chroma.txt
	@touch $@

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing requirements.txt into $(VENV); the first time this takes a minute or two …"
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.installed-serve: requirements-serve.txt $(VENV)/.installed
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements-serve.txt
	@touch $@

$(VENV)/.installed-ray: requirements-ray.txt $(VENV)/.installed
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements-ray.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-serve.txt $(VENV)/.installed
	@$(VENV)/bin/pip install -qq --disable-pip-version-check -r requirements-dev.txt -r requirements-serve.txt
	@touch $@
