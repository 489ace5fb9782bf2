# What there is to do here: make help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
DROVER_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/drover
export DROVER_CACHE
# A fresh clone finds here what was compiled before.
export CARGO_TARGET_DIR ?= $(DROVER_CACHE)/target

# timed COMMAND: runs it and says how long it took.
timed = start=$$SECONDS; $(1); echo "$@: $$((SECONDS - start)) s"

.PHONY: help
help: ## Show this
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## RabbitMQ, PostgreSQL, a cluster, Drover on it and simulated devices; again: repairs and goes on
	@e2e/demo/up.sh

.PHONY: demo-down
demo-down: ## Take the demo away, all of it
	@e2e/demo/down.sh

.PHONY: cluster-up
cluster-up: ## A cluster: DROVER_CONTEXT, else kind where Docker runs, else a node of our own
	@e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Take the cluster away, with the services in its network
	@e2e/cluster/down.sh

.PHONY: test
test: ## Every test but the slow ones (KEEP=1 leaves the cluster up)
	@e2e/test.sh lint pure hub chart cluster

.PHONY: test-full
test-full: ## Every test, the slow ones too
	@FULL=1 e2e/test.sh lint pure hub hub4 pooled chart cluster

.PHONY: test-pure
test-pure: ## Tests that need nothing
	@e2e/test.sh pure

.PHONY: test-chart
test-chart: ## The chart, alerts, dashboard, Argo CD scripts, overlays, pages and shell scripts
	@e2e/test.sh chart

.PHONY: test-hub
test-hub: ## Tests against a real RabbitMQ and PostgreSQL
	@e2e/test.sh hub

.PHONY: test-hub4
test-hub4: ## The same against RabbitMQ 4
	@e2e/test.sh hub4

.PHONY: test-pooled
test-pooled: ## What writes to the store, through PgBouncer in transaction mode
	@e2e/test.sh pooled

.PHONY: test-cluster
test-cluster: ## End-to-end tests on the cluster
	@e2e/test.sh cluster

.PHONY: fuzz
fuzz: ## Fuzz the query parser and the event decoder, FUZZ_SECONDS each (60)
	@$(call timed,worker/fuzz/run.sh)

.PHONY: bench
bench: ## Benchmarks, into docs/benchmarks.md (BENCH="name" for one)
	@e2e/bench.sh $(if $(BENCH),"$(BENCH)")

.PHONY: crds
crds: ## Write crds/*.yaml, and the chart's copy, from the types
	@$(call timed,e2e/crds.sh)

.PHONY: chart-readme
chart-readme: ## Write the values of the chart into its README
	@$(call timed,UPDATE_README=1 cargo test -q -p drover-crds --test chart the_readme)

.PHONY: argocd
argocd: ## Write docs/examples/argocd/argocd-cm.yaml from the scripts beside it
	@$(call timed,e2e/chart/write.sh argocd)

.PHONY: reference
reference: ## Write the reference and the list of metrics in docs/src from the schema and the sources
	@$(call timed,e2e/chart/write.sh reference metrics)

.PHONY: dist
dist: ## A release in dist/: chart, CRDs, binaries, SBOMs, checksums (CHART_REGISTRY=oci://… pushes the chart)
	@e2e/dist.sh

.PHONY: fmt
fmt: ## Format the code
	@$(call timed,cargo fmt --all)

.PHONY: lint
lint: ## Formatting and lints, warnings as errors
	@e2e/test.sh lint

.PHONY: images
images: ## Both images, into the cluster that is up
	@e2e/images/build.sh

.PHONY: push
push: ## Build and push both images with Docker: REGISTRY=… (TAG=…)
	@$(call timed,e2e/images/push.sh "$(REGISTRY)" "$(TAG)")

.PHONY: clean-cache
clean-cache: ## Remove everything that was built or downloaded
	@e2e/cluster/down.sh
	@$(call timed,rm -rf "$(DROVER_CACHE)")
