# The short list. Everything else: `.venv/bin/inv --list`.
# `make publish deploy` runs one after the other, even with -j.
.NOTPARALLEL:
INV := .venv/bin/inv
LAYER := build/oracle-instantclient-layer.zip
.DEFAULT_GOAL := help
# These variables would change the output of bash, or the modules that Python loads.
unexport BASH_ENV PYTHONPATH PYTHONHOME

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/ready-dev ## Close a day on this machine: the cloud, the deploy, the closing, the result
	@$(INV) demo

.PHONY: unit
unit: .venv/ready-dev ## Run the tests that need no service, in less than a minute
	.venv/bin/pytest -q -n 2 --dist loadgroup -m "not long and not slow" tests/unit local/oracle/tests

# Four workers on two cores: a test of the local cloud waits half of its time.
.PHONY: test
test: .venv/ready-dev ## Run everything that needs no AWS account
	.venv/bin/pytest -q -n 4 --dist loadgroup --no-loadscope-reorder

.PHONY: test-slow
test-slow: .venv/ready-dev ## Run the tests that take too long for make test
	.venv/bin/pytest -q -m slow

.PHONY: moto
moto: .local/moto/ready ## Run the AWS commands against moto, which refuses more than the local cloud does
	.venv/bin/pytest -q -m moto

.PHONY: bench
bench: .venv/ready-dev ## Run the benchmarks: other ways measured side by side
	@$(INV) bench

.PHONY: simulate
simulate: .venv/ready-dev ## Simulate closings under faults: make simulate N=200000 SEED=1
	@PYTHONPATH=.:tests PYTHONHASHSEED=0 .venv/bin/python -m simulation --runs $(or $(N),10000) --seed $(or $(SEED),1)

.PHONY: chaos
chaos: .venv/ready-dev ## Close days under faults: make chaos N=100 SEED=1
	@$(INV) chaos -n "$(or $(N),20)" --seed "$(or $(SEED),1)"

.PHONY: lint
lint: .venv/ready-dev ## Check layout, scripts, workflows, policies and names
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/shellcheck ops/*.sh .ci/run
	@$(INV) policies
	.venv/bin/actionlint -shellcheck .venv/bin/shellcheck
	.venv/bin/zizmor --offline --quiet .github
	.venv/bin/python -m ops.names

.PHONY: layer
layer: $(LAYER) ## Make the Instant Client layer: make layer INSTANT_CLIENT=path/to/the.zip

# The environment of publish, deploy and ping: ENV, or the only one beside `local`.
ENVIRONMENTS := $(filter-out example local,$(basename $(notdir $(wildcard env/*.env))))
ifneq ($(filter publish deploy ping,$(MAKECMDGOALS)),)
ifeq ($(ENV),)
ifeq ($(ENVIRONMENTS),)
$(error No environment beside local: copy env/example.env to env/prod.env and fill it in, or add ENV=local)
endif
ifneq ($(words $(ENVIRONMENTS)),1)
$(error Which environment? Add ENV=NAME, one of: $(ENVIRONMENTS))
endif
$(info ENV=$(ENVIRONMENTS), the only environment beside local)
ENV := $(ENVIRONMENTS)
endif
endif

.PHONY: publish
publish: .venv/ready $(LAYER) ## Publish the layer as a new version: make layer publish [ENV=prod]
	@$(INV) layer.publish --env "$(ENV)"

.PHONY: deploy
deploy: .venv/ready ## Deploy the function: make deploy [ENV=prod]
	$(INV) deploy --env "$(ENV)"

# For cron: it runs what is installed, and installs nothing.
.PHONY: ping
ping: ## Ping the live version and ask Restate, print nothing if all is well: make ping [ENV=prod]
	@ops/venv.sh check
	@$(INV) ping --env "$(ENV)" --quiet --closings $(if $(DEEP),--deep)

.PHONY: down
down: .venv/ready-dev ## Stop the cloud on this machine
	$(INV) local.down

# make cannot see from a file's age that .venv was moved or that its Python is gone. FORCE then makes it again.
.venv/ready: requirements.txt $(shell BASH_ENV= ops/venv.sh sound || echo FORCE)
	@ops/venv.sh install $@ $<

.venv/ready-dev: requirements-dev.txt handler/requirements.txt .venv/ready
	@ops/venv.sh install $@ $^

# Separate from .venv: the tasks do not need moto.
.local/moto/ready: tests/moto.txt | .venv/ready-dev
	.venv/bin/uv venv --quiet --clear .local/moto
	.venv/bin/uv pip install --quiet --python .local/moto/bin/python --require-hashes -r tests/moto.txt
	touch $@

$(LAYER): $(wildcard layer/*.py $(INSTANT_CLIENT)) $(if $(INSTANT_CLIENT),.local/layer-input) | .venv/ready
	@$(INV) layer.build $(if $(RUNTIME),--runtime $(RUNTIME))

# The names of the layer's inputs. If one changes, even to an older ZIP, the layer is built again.
.local/layer-input: FORCE
	@ops/changed.sh $@ "$$INSTANT_CLIENT $$INSTANT_CLIENT_ANY $$LIBAIO $$RUNTIME"

FORCE:
