#!/usr/bin/env bash
# A Kubernetes for the demo and the tests, in one command; a second call finds it healthy and returns, or repairs it.
#   CLUSTER=local    (default) two real nodes on this machine, as root, without Docker and without a registry
#   CLUSTER=kind     kind, where Docker is
#   CLUSTER=current  the cluster of the current kubeconfig context; set IMAGE_REGISTRY to where it pulls from
# Afterwards CLUSTER_DIR holds kubeconfig, bin/kubectl, bin/helm and env (to be sourced), whichever it is.
. "$(dirname "$0")/lib.sh"
. "$HERE/certs.sh"
. "$HERE/local.sh"

up_local() {
    need_root cluster-up
    check_place
    lock
    if local_healthy; then
        load_images # what was built since
        step "the cluster is up and healthy"
        return
    fi
    "$HERE/deps.sh" cluster images
    if ! any_process; then
        local_down # what a crash or a restart of the machine left
        check_free
    fi
    link_tools
    "$REPO/images/build.sh" pause coredns
    if any_process; then
        step "the cluster is up in part: starting what is missing"
        start_local && return
        step "that did not bring it back: starting it anew"
        local_down
    fi
    rm -rf "$CLUSTER_DIR/logs"
    start_local || die "the cluster did not come up" "logs: $CLUSTER_DIR/logs" "make cluster-down removes what was started"
}

up_kind() {
    command -v docker >/dev/null && docker info >/dev/null 2>&1 || die "CLUSTER=kind needs a running Docker"
    command -v kind >/dev/null || die "kind is not installed" "go install sigs.k8s.io/kind@latest"
    link_clients
    kind get clusters 2>/dev/null | grep -qx wsfleet || kind create cluster --name wsfleet --wait 120s --config - <<END
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- {role: control-plane}
$(for _ in $(seq "$NODES"); do echo "- {role: worker}"; done)
END
    kind get kubeconfig --name wsfleet >"$CLUSTER_DIR/kubeconfig"
}

up_current() {
    [ -n "${IMAGE_REGISTRY:-}" ] || die "CLUSTER=current needs IMAGE_REGISTRY, a prefix that the cluster can pull from" \
        "for example: make cluster-up images-push CLUSTER=current IMAGE_REGISTRY=registry.example.com/wsfleet"
    link_clients
    kubectl config view --minify --flatten --raw >"$CLUSTER_DIR/kubeconfig.new" || die "there is no current context" "see: kubectl config get-contexts"
    mv "$CLUSTER_DIR/kubeconfig.new" "$CLUSTER_DIR/kubeconfig"
    kctl get --raw /readyz >/dev/null || die "the cluster of context $(kctl config current-context) does not answer"
}

mkdir -p "$CLUSTER_DIR"
case $CLUSTER in
    local) up_local ;;
    kind) up_kind ;;
    current) up_current ;;
    *) die "unknown CLUSTER=$CLUSTER" "use local, kind or current" ;;
esac
chmod 600 "$CLUSTER_DIR/kubeconfig"
image_prefix=wsfleet.test
[ "$CLUSTER" != current ] || image_prefix=$IMAGE_REGISTRY
cat >"$CLUSTER_DIR/env" <<END
export CLUSTER=$CLUSTER CLUSTER_DIR=$CLUSTER_DIR IMAGE_PREFIX=$image_prefix
export KUBECONFIG=$CLUSTER_DIR/kubeconfig PATH=$CLUSTER_DIR/bin:\$PATH
END
kctl get nodes
step "to use it: . ${CLUSTER_DIR#"$PWD/"}/env"
