# The entry to everything: `make help` lists what there is.

# Where the cluster's state is, and which cluster it is (local, kind or current), for every script below.
export CLUSTER ?= local
export CLUSTER_DIR ?= $(CURDIR)/.cluster

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-z-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ A Kubernetes to run on (CLUSTER=local | kind | current)
.PHONY: cluster-up cluster-down cluster-status images images-push
cluster-up: ## start the cluster, or repair it; nothing to do when it is healthy
	@tests/cluster/up.sh
cluster-down: ## remove the cluster and all it left on this machine
	@tests/cluster/down.sh
cluster-status: ## what runs, and how to use it
	@tests/cluster/status.sh
images: ## build the images, and give them to the cluster that is up
	@images/build.sh
images-push: images ## push the images to IMAGE_REGISTRY (for CLUSTER=current)
	@images/push.sh
