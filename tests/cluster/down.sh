#!/usr/bin/env bash
# Removes what up.sh started: processes by their recorded ids, pods, mounts, the bridge, kube-proxy's rules, kernel settings.
# Logs of the run and built images stay in CLUSTER_DIR.
. "$(dirname "$0")/lib.sh"
. "$HERE/local.sh"

case $CLUSTER in
    local)
        [ -d "$CLUSTER_DIR" ] || exit 0
        need_root cluster-down
        lock
        local_down
        step "the cluster is gone"
        ;;
    kind) kind delete cluster --name wsfleet ;;
    current) step "CLUSTER=current: nothing was started, nothing is removed" ;;
    *) die "unknown CLUSTER=$CLUSTER" "use local, kind or current" ;;
esac
