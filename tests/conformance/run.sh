#!/usr/bin/env bash
# The WebSocket layer against every case of the Autobahn TestSuite: an echo server on the gateway's own listener, handshake,
# frames, compression and write path (gateway/examples/echo.rs) is driven by it, and what comes of each case is compared
# with expected.txt, in which no case fails.
#   usage: run.sh [--record] [CASE...]      CASE: an id or a pattern such as 9.*; default: all
# --record writes expected.txt anew; it refuses to write down a failure.
. "$(dirname "$0")/../cluster/lib.sh"
folder=$REPO/tests/conformance
expected=$folder/expected.txt
record=
if [ "${1:-}" = --record ]; then
    record=yes
    shift
fi

python=$("$REPO/tests/python.sh" tests/conformance)/python
target=${CARGO_TARGET_DIR:-$REPO/target}
if [ -z "${WSFLEET_PROGRAMS:-}" ]; then # tests/run.sh has built everything
    step "building the echo server"
    (cd "$REPO" && cargo build --quiet -p wsfleet-gateway --example echo)
fi
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# port 0: the system picks one that is free, the server says which
"${WSFLEET_PROGRAMS:-$target/debug}/examples/echo" --listen 127.0.0.1:0 >"$work/address" 2>"$work/log" &
server=$!
wait_for 20 "the echo server" grep -q '^listening on ' "$work/address" || {
    cat "$work/log" >&2
    die "the echo server did not start"
}
address=$(sed -n 's/^listening on //p' "$work/address")

step "running the cases against ws://$address/ws"
report=$target/conformance
rm -rf "$report"
"$python" "$folder/cases.py" "ws://$address/ws" "$report" "$@" >"$work/found"
kill -0 "$server" 2>/dev/null || {
    cat "$work/log" >&2
    die "the echo server ended while it was tested"
}

# what passes: as asked, or in a way that the RFC allows
passing='^[0-9.]+ (OK|NON-STRICT|INFORMATIONAL) (OK|INFORMATIONAL)$'
if grep -Ev "$passing" "$work/found" >&2; then
    die "the cases above failed" "report: $report/index.html"
fi
if [ -n "$record" ]; then
    [ $# -eq 0 ] || die "--record is for all cases"
    cp "$work/found" "$expected"
fi
if [ $# -eq 0 ]; then
    cp "$expected" "$work/expected"
else # of the cases that were asked for
    awk 'NR == FNR { asked[$1] = 1; next } $1 in asked' "$work/found" "$expected" >"$work/expected"
    [ -s "$work/expected" ] || die "no such case: $*"
fi
diff -u "$work/expected" "$work/found" >&2 || die "not what $expected says" "report: $report/index.html"
step "$(wc -l <"$work/found") cases as expected: $(cut -d' ' -f2 "$work/found" | sort | uniq -c | awk '{ printf "%s%d %s", sep, $1, $2; sep = ", " }')"
