#!/usr/bin/env bash
# `make bench`: WebSocket servers side by side, in one run; `make bench-storm`: a fleet. See docs/benchmarks.md.
#   BENCH_QUICK=yes          small numbers, one round, no release build: whether everything works
#   RECORD=yes               write the result into docs/benchmarks.md and docs/benchmarks/
#   BENCH_PART=bench         the target: what it measures is written into the part of the page that is named so
#   BENCH_MINUTES=45         no further round is begun that would end later
#   WSFLEET_PROGRAMS=FOLDER  programs that are built already (BENCH_QUICK only)
# Further arguments go to wsfleet-bench, such as `--servers floor,gateway --workloads burst` (see its --help).
. "$(dirname "$0")/../cluster/lib.sh"
cd "$REPO"

peers=tests/bench/peers
part=${BENCH_PART:-bench}
results=target/bench/$part.json

"$REPO/tests/cluster/deps.sh" bench
step "installing the Node servers"
npm ci --prefix $peers --no-audit --no-fund --silent

case ${BENCH_QUICK:-} in
    "" | 0 | no)
        step "building (release)"
        cargo build --release --quiet -p wsfleet-gateway -p wsfleet-bench -p wsfleet-load
        programs=${CARGO_TARGET_DIR:-target}/release
        set -- --minutes "${BENCH_MINUTES:-45}" "$@"
        ;;
    *)
        programs=${WSFLEET_PROGRAMS:-}
        if [ -z "$programs" ]; then
            step "building"
            cargo build --quiet -p wsfleet-gateway -p wsfleet-bench -p wsfleet-load
            programs=${CARGO_TARGET_DIR:-target}/debug
        fi
        set -- --quick "$@"
        ;;
esac

# locked CRATE: its version
locked() { awk -v name="name = \"$1\"" '$0 == name {getline; gsub(/"/, "", $3); print $3; exit}' Cargo.lock; }
# installed PACKAGE: its version
installed() { node -p "require('./$peers/node_modules/$1/package.json').version"; }
about="Measured $(date -u +%F), gateway of $(git log -1 --format=%h -- gateway)"
machine="on $(nproc) cores, Linux $(uname -r | cut -d. -f1,2); \
$(rustc --version | cut -d' ' -f1,2), tokio $(locked tokio), axum $(locked axum), tungstenite $(locked tungstenite), \
Node $(node --version), ws $(installed ws), Socket.IO $(installed socket.io)."

[ "${RECORD:-no}" != yes ] || set -- --record docs/benchmarks.md "$@"
"$programs/wsfleet-bench" --programs "$programs" --peers $peers --json "$results" --part "$part" \
    --about "$about" --machine "$machine" "$@"
step "the numbers of all rounds: $results"
