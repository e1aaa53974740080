#!/usr/bin/env bash
# The server API of a running gateway against docs/openapi.yaml, as the gateway serves it: schemathesis makes requests that
# the document allows, and such that it does not, and checks statuses, headers, bodies and authentication.
#   usage: run.sh [SCHEMATHESIS ARGUMENT...]
. "$(dirname "$0")/../cluster/lib.sh"
folder=$REPO/tests/api
tools=$("$REPO/tests/python.sh" tests/api)
target=${CARGO_TARGET_DIR:-$REPO/target}
if [ -z "${WSFLEET_PROGRAMS:-}" ]; then # tests/run.sh has built everything
    step "building the gateway"
    (cd "$REPO" && cargo build --quiet --workspace --bin wsfleet-gateway)
fi
work=$(mktemp -d)
gateway=
cleanup() {
    [ -z "$gateway" ] || kill "$gateway" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

echo schemathesis-schemathesis >"$work/key"
# port 0: the system picks those that are free, the gateway says which
"${WSFLEET_PROGRAMS:-$target/debug}/wsfleet-gateway" --auth insecure-token --api-key-file "$work/key" \
    --listen 127.0.0.1:0 --api-listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 >"$work/log" 2>&1 &
gateway=$!
address() { sed 's/\x1b\[[0-9;]*m//g' "$work/log" | grep -o 'api=127.0.0.1:[0-9]*' | head -n 1 | cut -d= -f2; }
served() { [ -n "$(address)" ]; }
wait_for 20 "the gateway" served || {
    cat "$work/log" >&2
    die "the gateway did not start"
}

step "checking the server API at $(address)"
"$tools/schemathesis" --config-file "$folder/schemathesis.toml" run "http://$(address)/api/v1/openapi.json" \
    --url "http://$(address)" --header "Authorization: Bearer schemathesis-schemathesis" "$@" || {
    tail -n 20 "$work/log" >&2
    die "the server API is not what docs/openapi.yaml says" "the requests to repeat it with are above"
}
kill -0 "$gateway" 2>/dev/null || {
    cat "$work/log" >&2
    die "the gateway ended while it was checked"
}
