# The entry to everything: `make help` lists what there is.

# Where the cluster's state is, and which cluster it is (local, kind or current), for every script below.
export CLUSTER ?= local
export CLUSTER_DIR ?= $(CURDIR)/.cluster

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ A Kubernetes to run on (CLUSTER=local | kind | current)
.PHONY: cluster-up cluster-down cluster-status cluster-selftest images images-push
cluster-up: ## start the cluster, or repair it; nothing to do when it is healthy
	@tests/cluster/up.sh
cluster-down: ## remove the cluster and all it left on this machine
	@tests/cluster/down.sh
cluster-status: ## what runs, and how to use it
	@tests/cluster/status.sh
cluster-selftest: ## start and remove a cluster, and prove that nothing is left behind
	@tests/cluster/selftest.sh
images: ## build the images, and give them to the cluster that is up
	@images/build.sh
images-push: images ## push the images to IMAGE_REGISTRY (for CLUSTER=current)
	@images/push.sh

##@ See it
.PHONY: demo
demo: ## from nothing to a fleet under load: it grows, is rolled out, shrinks; a table says what clients noticed
	@tests/demo/demo.sh

##@ Checks
CARGO ?= cargo
.PHONY: test lint fmt generate check-generated test-unit test-protocol test-api client fuzz chaos soak found presence conformance test-cluster deps
test: ## everything: lint, units, sockets, the real cluster (needs root for the cluster)
	@tests/run.sh
lint: deps ## formatting, clippy, dependencies, generated files, the chart
	@tests/run.sh parts
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@tools=$$(tests/tools.sh) && PATH=$$tools:$$PATH && set -x && cargo-deny --log-level error check --hide-inclusion-graph bans licenses sources && cargo-machete --with-metadata
	@$(MAKE) --no-print-directory check-generated
	@helm=$$(tests/cluster/build.sh helm) && set -x && "$$helm" lint --strict charts/wsfleet
fmt: ## format the code
	$(CARGO) fmt --all
generate: ## write the generated files anew (CRD, the chart's copy of it)
	$(CARGO) run --quiet --bin crdgen > crds/wsfleet.dev_websocketclusters.yaml.new
	@mv crds/wsfleet.dev_websocketclusters.yaml.new crds/wsfleet.dev_websocketclusters.yaml
	@charts/sync.sh
check-generated: generate ## fail when a generated file is not what its source says
	@git diff --exit-code -- crds/wsfleet.dev_websocketclusters.yaml charts/ || \
	  { echo 'error: generated files differ from their sources: run `make generate` and commit them' >&2; exit 1; }
test-unit: ## units and property tests
	@tests/run.sh unit
test-protocol: ## the gateway on real sockets, with each broker (real redis-server and nats-server)
	@tests/run.sh protocol
test-api: ## the server API of a running gateway against its document, docs/openapi.yaml (schemathesis)
	@tests/run.sh api
client: ## the JavaScript client: units, the real gateway, lint, size (clients/js)
	@tests/run.sh client
fuzz: ## what reads bytes of strangers, by libFuzzer (FUZZ_SECONDS=600 for each target, FUZZ_TARGET=x for one)
	@tests/fuzz.sh
chaos: ## 20 gateways killed at random in ten minutes under 2,000 clients; nothing may be lost (CHAOS_SEED=n, RECORD=yes)
	@tests/endurance.sh chaos
soak: ## an hour of connections that come and go; nothing may be left (SOAK_MINUTES=60, RECORD=yes)
	@tests/endurance.sh soak
found: ## how soon gateways find that a link to Redis is dead, for each way that comes about (RECORD=yes)
	@tests/endurance.sh found
presence: ## 10,000 members of a room while gateways are killed and replaced; nobody hears of it (RECORD=yes)
	@tests/endurance.sh presence
conformance: ## the WebSocket layer against every case of the Autobahn TestSuite
	@tests/run.sh conformance
test-cluster: ## the resource, the operator and the chart on the real cluster
	@tests/run.sh cluster
deps: ## install what the tests need (as root), or say what to install
	@tests/cluster/deps.sh tests

##@ Benchmarks (results: docs/benchmarks.md)
.PHONY: bench bench-memory bench-fleet bench-storm
bench: ## this gateway beside others in one run, and then bench-fleet, some 30 minutes (BENCH_QUICK=yes: small; RECORD=yes writes the result down)
	@tests/bench/bench.sh
	@$(MAKE) --no-print-directory bench-fleet
bench-memory: ## memory of 18,000 idle sockets; fails above 2 KiB a socket (RECORD=yes writes the result down)
	@tests/bench/memory.sh
bench-fleet: ## what a back end publishes to three gateways over Redis, beside Socket.IO; 100,000 rooms subscribed again (RECORD=yes writes it down)
	@BENCH_PART=bench-fleet tests/bench/bench.sh --workloads backend-room,backend-rooms,resubscribe
bench-storm: ## 50,000 clients of a fleet that is killed come back at once to another (RECORD=yes writes the result down)
	@BENCH_PART=bench-storm tests/bench/bench.sh --workloads comeback
