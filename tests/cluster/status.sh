#!/usr/bin/env bash
# Says whether the cluster is up, what runs in it, and how to use it. Exit status 1 when it is not healthy.
. "$(dirname "$0")/lib.sh"
. "$HERE/local.sh"

if [ "$CLUSTER" = local ]; then
    any_process || die "the cluster is not up" "start it: make cluster-up"
    for name in $(processes); do pid_of "$name" >/dev/null || echo "not running: $name (log: $CLUSTER_DIR/logs/$name.log)"; done
fi
kctl get nodes -o wide
kctl get pods -A -o wide
echo "use it: . $CLUSTER_DIR/env"
[ "$CLUSTER" != local ] || local_healthy || die "the cluster is not healthy" "repair it: make cluster-up"
