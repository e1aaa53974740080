#!/usr/bin/env bash
# `make test`: everything, in the order in which a mistake is found soonest; each runner's own closing lines are shown.
#   usage: run.sh [lint] [unit] [protocol] [cluster]      (default: all)
# A cluster that was up before stays up; one that this script started is removed again.
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"

part() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
# suite TARGET...: test binaries of wsfleet-tests, one after the other; threads: how many tests of one run at once
suite() {
    local threads=$1 names=() name
    shift
    for name in "$@"; do names+=(--test "$name"); done
    cargo test -p wsfleet-tests --no-fail-fast "${names[@]}" -- --test-threads "$threads"
}

run_lint() {
    part "lint"
    make --no-print-directory lint
}

run_unit() {
    part "units and properties"
    cargo test --workspace --exclude wsfleet-tests
}

run_protocol() {
    part "the gateway on real sockets, with both brokers"
    "$HERE/deps.sh" tests
    cargo test -p wsfleet-tests --lib --no-fail-fast --test 'broker_*' --test 'protocol_*' --test 'load_*'
}

idle_pid=
cleanup() {
    local status=$?
    [ -z "$idle_pid" ] || kill "$idle_pid" 2>/dev/null || true
    if [ "${ours:-}" = yes ]; then
        [ $status -eq 0 ] || keep_evidence
        "$HERE/down.sh" || true
    fi
    exit $status
}
# what a person wants to read after a failure, since the cluster goes away
keep_evidence() {
    kctl get wsc,pods -A -o wide >&2 || true
    kctl get events -A --sort-by=.lastTimestamp 2>/dev/null | tail -n 40 >&2 || true
}

run_cluster() {
    part "the cluster and the images"
    trap cleanup EXIT
    ours=yes
    [ ! -d "$CLUSTER_DIR/pids" ] || [ -z "$(ls "$CLUSTER_DIR/pids")" ] || ours=no
    "$HERE/up.sh"
    # shellcheck disable=SC1091 # written by up.sh
    . "$CLUSTER_DIR/env"
    "$REPO/images/build.sh"
    [ "$CLUSTER" != current ] || "$REPO/images/push.sh"
    helm=$("$HERE/build.sh" helm)
    export PATH=${helm%/*}:$PATH
    cargo test --quiet -p wsfleet-tests --no-run

    part "idle for ten minutes, in the background"
    local idle_log=$CLUSTER_DIR/logs/scenario_idle.log
    suite 1 scenario_idle >"$idle_log" 2>&1 &
    idle_pid=$!

    part "the resource, the operator and the chart on the real API server"
    suite 4 'cluster_*' 'crd_*' 'controller_*' 'chart_*'
    part "scenarios on the real cluster"
    suite 1 scenario_rollout scenario_scale scenario_disruption scenario_errors

    part "idle for ten minutes: the result"
    local status=0
    wait "$idle_pid" || status=$?
    idle_pid=
    cat "$idle_log"
    return $status
}

[ $# -gt 0 ] || set -- lint unit protocol cluster
for name in "$@"; do
    case $name in
        lint | unit | protocol | cluster) "run_$name" ;;
        *) die "unknown part $name" "parts: lint unit protocol cluster" ;;
    esac
done
step "all of it passed: $*"
