#!/usr/bin/env bash
# `make bench`: WebSocket servers side by side, in one run. See docs/benchmarks.md.
#   BENCH_QUICK=yes          small numbers, one round, no release build: whether everything works
#   RECORD=yes               write the result into docs/benchmarks.md and docs/benchmarks/
#   BENCH_MINUTES=18         no further round is begun that would end later
#   WSFLEET_PROGRAMS=FOLDER  programs that are built already (BENCH_QUICK only)
# Further arguments go to wsfleet-bench, such as `--servers floor,gateway --workloads burst` (see its --help).
. "$(dirname "$0")/../cluster/lib.sh"
cd "$REPO"

peers=tests/bench/peers
results=target/bench

"$REPO/tests/cluster/deps.sh" bench
step "installing the Node servers"
npm ci --prefix $peers --no-audit --no-fund --silent

case ${BENCH_QUICK:-} in
    "" | 0 | no)
        step "building (release)"
        cargo build --release --quiet -p wsfleet-gateway -p wsfleet-bench
        programs=${CARGO_TARGET_DIR:-target}/release
        set -- --minutes "${BENCH_MINUTES:-18}" "$@"
        ;;
    *)
        programs=${WSFLEET_PROGRAMS:-}
        if [ -z "$programs" ]; then
            step "building"
            cargo build --quiet -p wsfleet-gateway -p wsfleet-bench
            programs=${CARGO_TARGET_DIR:-target}/debug
        fi
        set -- --quick "$@"
        ;;
esac

# locked CRATE: its version
locked() { awk -v name="name = \"$1\"" '$0 == name {getline; gsub(/"/, "", $3); print $3; exit}' Cargo.lock; }
# installed PACKAGE: its version
installed() { node -p "require('./$peers/node_modules/$1/package.json').version"; }
about="Measured $(date -u +%F), gateway of $(git log -1 --format=%h -- gateway), on $(nproc) cores, Linux $(uname -r | cut -d. -f1,2); \
$(rustc --version | cut -d' ' -f1,2), tokio $(locked tokio), axum $(locked axum), tungstenite $(locked tungstenite), \
Node $(node --version), ws $(installed ws), Socket.IO $(installed socket.io)."

[ "${RECORD:-no}" != yes ] || set -- --record docs/benchmarks.md "$@"
"$programs/wsfleet-bench" --programs "$programs" --peers $peers --json $results/results.json --about "$about" "$@"
step "the numbers of all rounds: $results/results.json"
