#!/usr/bin/env bash
# `make test`: everything, in the order in which a mistake is found soonest; each runner's own closing lines are shown.
#   usage: run.sh [parts] [lint] [unit] [protocol] [api] [client] [fuzz] [conformance] [cluster]      (default: all)
# A cluster that was up before stays up; one that this script started is removed again.
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"

part() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }

# Everything is built in one go, tests and programs: each crate then has one set of features, and is compiled once.
build() {
    [ -z "${built:-}" ] || return 0
    step "building the programs and the tests"
    cargo build --workspace --all-targets --quiet
    WSFLEET_PROGRAMS=${CARGO_TARGET_DIR:-$REPO/target}/debug
    export WSFLEET_PROGRAMS
    built=yes
}

# Which test files belong to which part; one that belongs to none is an error, so that none is forgotten.
units=(smoke it)
protocol=('broker_*' 'load_*' 'protocol_*')
api=('chart_*' 'cluster_*' 'controller_*' 'crd_*')
scenarios=(scenario_deletion scenario_disruption scenario_errors scenario_leaders scenario_rebalance scenario_rollback scenario_rollout scenario_scale scenario_service scenario_streams scenario_browser)
idle=scenario_idle

run_parts() {
    local file name pattern found
    for file in */tests/*.rs tests/load/tests/*; do
        name=$(basename "$file" .rs) found=
        for pattern in "${units[@]}" "${protocol[@]}" "${api[@]}" "${scenarios[@]}" $idle; do
            # shellcheck disable=SC2053 # a pattern
            [[ $name != $pattern ]] || found=yes
        done
        [ -n "$found" ] || die "$file belongs to no part of tests/run.sh"
    done
}

# Files of tests that passed only when they ran again.
again=()

# suite THREADS PATTERN...: test binaries of wsfleet-tests one after the other, so many tests of one at once; what they
# measured is shown. Real servers fail here under real clocks, and a machine that pauses for seconds looks like a failure of
# theirs: up to three files run again, one test at a time. What fails then too fails the suite, and what did not is named at the end.
suite() {
    local threads=$1 names=() failed name log
    shift
    for name in "$@"; do names+=(--test "$name"); done
    log=$(mktemp)
    if cargo test --workspace --no-fail-fast "${names[@]}" -- --show-output --test-threads "$threads" 2>&1 | tee "$log"; then
        rm -f "$log"
        return 0
    fi
    # as cargo names what failed: `-p wsfleet-tests --test NAME`
    mapfile -t failed < <(sed -n 's/^ *`-p wsfleet-tests --test \([a-z0-9_]*\)`$/\1/p' "$log")
    rm -f "$log"
    [ ${#failed[@]} -gt 0 ] && [ ${#failed[@]} -le 3 ] || return 1
    part "again, one test at a time: ${failed[*]}"
    cargo test --workspace --no-fail-fast "${failed[@]/#/--test=}" -- --show-output --test-threads 1 || return 1
    again+=("${failed[@]}")
}

run_lint() {
    part "lint"
    make --no-print-directory lint
}

run_unit() {
    part "units and properties"
    build
    cargo test --workspace --no-fail-fast --lib --bins "${units[@]/#/--test=}"
    cargo test --workspace --no-fail-fast --doc
}

# What the part `cluster` takes long to compile, at the lowest priority while tests wait for what they wait for. What fails here
# is built again there, and told.
ahead=
compile_ahead() {
    [[ " $parts " == *" cluster "* && -z "$ahead" ]] || return 0
    (
        for program in kube helm coredns; do nice -n 19 "$HERE/build.sh" $program; done
        nice -n 19 "$REPO/images/build.sh" programs
    ) >/dev/null 2>&1 &
    ahead=$!
}

run_protocol() {
    part "the gateway on real sockets, with each broker"
    "$HERE/deps.sh" tests
    "$HERE/build.sh" nats-server >/dev/null
    build
    compile_ahead
    suite 2 "${protocol[@]}"
    part "the benchmarks, with small numbers: every server delivers everything"
    BENCH_QUICK=yes tests/bench/bench.sh >/dev/null
    BENCH_QUICK=yes tests/bench/bench.sh --workloads backend-room,backend-rooms,resubscribe >/dev/null
}

run_api() {
    part "the server API against its document"
    build
    "$REPO/tests/api/run.sh"
}

# Node's own summary is what it closes with. The gateway is built alone: that is all it needs.
run_client() {
    part "the JavaScript client: lint, size, units, the real gateway, Chromium"
    "$HERE/deps.sh" client
    [ -n "${built:-}" ] || cargo build --package wsfleet-gateway --quiet
    (
        cd clients/js
        npm ci --silent
        npm run --silent lint
        npm run --silent size
        WSFLEET_PROGRAMS=${CARGO_TARGET_DIR:-$REPO/target}/debug npm run --silent test:all
    )
}

run_fuzz() {
    part "fuzzing: a minute for each target, two at a time"
    FUZZ_SECONDS=${FUZZ_SECONDS:-60} tests/fuzz.sh
}

run_conformance() {
    part "the WebSocket layer against the Autobahn cases"
    build
    "$REPO/tests/conformance/run.sh"
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
    [ -z "$ahead" ] || wait "$ahead" || true
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
    build
    "$HERE/deps.sh" client
    npm ci --silent --prefix clients/js

    part "idle for ten minutes, in the background"
    local idle_log=$CLUSTER_DIR/logs/scenario_idle.log
    suite 1 $idle >"$idle_log" 2>&1 &
    idle_pid=$!

    local failed=0
    part "the resource, the operator and the chart on the real API server"
    suite 3 "${api[@]}" || failed=1
    part "scenarios on the real cluster"
    suite 1 "${scenarios[@]}" || failed=1

    part "idle for ten minutes: the result"
    wait "$idle_pid" || failed=1
    idle_pid=
    cat "$idle_log"
    return $failed
}

[ $# -gt 0 ] || set -- lint unit protocol api client fuzz conformance cluster
parts=$*
for name in "$@"; do
    case $name in
        parts | lint | unit | protocol | api | client | fuzz | conformance | cluster) "run_$name" ;;
        *) die "unknown part $name" "parts: lint unit protocol api client fuzz conformance cluster" ;;
    esac
done
step "all of it passed: $*"
[ ${#again[@]} -eq 0 ] || step "only when it ran again: ${again[*]}"
