# The short list. Everything else: `.venv/bin/inv --list`.
INV := .venv/bin/inv
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/ready ## Close a day on this machine: the cloud, the deploy, the closing, the result
	@$(INV) demo

.PHONY: test
test: .venv/ready ## Run everything that needs no AWS account
	.venv/bin/pytest -q

.PHONY: bench
bench: .venv/ready ## Measure against other ways, side by side
	@$(INV) bench

.PHONY: chaos
chaos: .venv/ready ## Close days under faults: make chaos N=100 SEED=1
	@$(INV) chaos -n "$(or $(N),20)" --seed "$(or $(SEED),1)"

.PHONY: lint
lint: .venv/ready ## Check layout, names and scripts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/shellcheck env/venv.sh .ci/run

.PHONY: deploy
deploy: .venv/ready ## Deploy the function: make deploy ENV=prod
	$(INV) deploy --env "$(ENV)"

.PHONY: down
down: .venv/ready ## End the cloud on this machine
	$(INV) local.down

.venv/ready: requirements.txt handler/requirements.txt env/venv.sh
	@env/venv.sh
