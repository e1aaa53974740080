#!/usr/bin/env bash
# What an idle socket costs the gateway: resident memory of 18,000 authenticated sockets, each in a room of 100.
# Fails above LIMIT bytes per socket. It is a bound on memory, not on time, so a busy machine does no harm.
#   CONNECTIONS=18000 ROOM_SIZE=100 LIMIT=2048   what is measured
#   RECORD=yes                                   write the result into docs/benchmarks.md
set -euo pipefail
cd "$(dirname "$0")/../.."

CONNECTIONS=${CONNECTIONS:-18000}
ROOM_SIZE=${ROOM_SIZE:-100}
LIMIT=${LIMIT:-2048}
RECORD=${RECORD:-no}
DOC=docs/benchmarks.md
# every socket is pinged once in this time (30 s, and a random part of it before the first)
HEARTBEAT=45

step() { printf '%s\n' "$*" >&2; }
die() { step "error: $*"; exit 1; }

work=$(mktemp -d)
gateway_pid= load_pid=
cleanup() {
    status=$?
    exec 3>&- || true
    for pid in $load_pid $gateway_pid; do kill -KILL "$pid" 2>/dev/null || true; done
    if [ $status -ne 0 ] && [ $status -ne 2 ]; then tail -n 20 "$work"/*.log >&2 || true; fi
    rm -rf "$work"
    exit $status
}
trap cleanup EXIT

# One source address has ports enough (28,232 to one server, by default), but the kernel looks for a free one for a
# long time when most are taken; of two, each is taken to a third.
sources=127.0.0.1,127.0.0.2
descriptors=$(ulimit -Hn)
if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt $((CONNECTIONS + 200)) ]; then
    die "$CONNECTIONS sockets need more than the $descriptors descriptors of this machine (ulimit -Hn)"
fi

# free_port: one nobody listens on, below the range that outgoing connections use
free_port() {
    local port
    while :; do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
        if ! (: </dev/tcp/127.0.0.1/$port) 2>/dev/null; then echo $port; return; fi
    done
}
kib() { awk -v key="$2:" '$1 == key {print $2}' "/proc/$1/status"; }
rss() { kib "$gateway_pid" VmRSS; }
# settled: waits until resident memory has changed by less than 64 KiB for 3 s, 30 s at most; prints it
settled() {
    local before now calm=0 looks=0
    before=$(rss)
    while [ $calm -lt 3 ] && [ $looks -lt 30 ]; do
        sleep 1
        now=$(rss)
        looks=$((looks + 1)) calm=$((calm + 1))
        if [ $((now - before)) -gt 64 ] || [ $((before - now)) -gt 64 ]; then calm=0; fi
        before=$now
    done
    echo "$before"
}

step "building"
cargo build --release --quiet -p wsfleet-gateway -p wsfleet-load
target=${CARGO_TARGET_DIR:-target}/release

head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/secret"
port=$(free_port)
"$target/wsfleet-gateway" --listen "127.0.0.1:$port" --api-listen "127.0.0.1:$(free_port)" \
    --admin-listen "127.0.0.1:$(free_port)" --broker memory --auth jwt --jwt-secret-file "$work/secret" \
    --max-connections 19500 --limit connectionsPerIp=0 --limit handshakesPerSecondPerIp=0 \
    --drain-window 1 >"$work/gateway.log" 2>&1 &
gateway_pid=$!
for _ in $(seq 100); do
    if (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null; then break; fi
    kill -0 "$gateway_pid" 2>/dev/null || die "the gateway has ended"
    sleep 0.1
done
empty=$(settled)

step "opening $CONNECTIONS sockets"
mkfifo "$work/hold"
"$target/wsfleet-load" idle --url "ws://127.0.0.1:$port/ws" --connections "$CONNECTIONS" --room-size "$ROOM_SIZE" \
    --rate 2000 --token-mode jwt --jwt-secret-file "$work/secret" --source "$sources" --quiet --json "$work/report.json" \
    <"$work/hold" >"$work/ready" 2>"$work/load.log" &
load_pid=$!
exec 3>"$work/hold"
for _ in $(seq 1800); do
    if [ -s "$work/ready" ]; then break; fi
    kill -0 "$load_pid" 2>/dev/null || die "the load generator has ended"
    sleep 0.1
done
[ -s "$work/ready" ] || die "not all of the $CONNECTIONS sockets have joined their rooms within 3 minutes"

step "letting it settle"
connected=$(settled)
step "one heartbeat of every socket ($HEARTBEAT s)"
sleep $HEARTBEAT
pinged=$(settled)
held=$(kib "$gateway_pid" Threads)
peak=$(kib "$gateway_pid" VmHWM)

exec 3>&-
wait "$load_pid" || die "the load generator says that something was lost or cut"
load_pid=
kill -TERM "$gateway_pid"
wait "$gateway_pid" || die "the gateway did not end with status 0"
gateway_pid=

per_socket() { echo $((($1 - empty) * 1024 / CONNECTIONS)); }
table() {
    echo "| | resident | per socket |"
    echo "|---|---|---|"
    echo "| no socket | $empty KiB | |"
    echo "| $CONNECTIONS sockets joined | $connected KiB | $(per_socket "$connected") B |"
    echo "| after a heartbeat of each | $pinged KiB | $(per_socket "$pinged") B |"
    echo "| highest ($held threads) | $peak KiB | $(per_socket "$peak") B |"
}
table

if [ "$RECORD" = yes ]; then
    {
        echo "<!-- memory: written by RECORD=yes make bench-memory -->"
        echo "Measured $(date -u +%F), gateway of $(git log -1 --format=%h -- gateway), on $(nproc) cores, Linux $(uname -r | cut -d. -f1,2), $(rustc --version | cut -d' ' -f1,2)."
        echo
        table
        echo "<!-- memory: end -->"
    } >"$work/section"
    awk -v section="$work/section" '
        /^<!-- memory: written/ {while ((getline line <section) > 0) print line; skip = 1}
        !skip {print}
        /^<!-- memory: end/ {skip = 0}' "$DOC" >"$work/doc"
    cp "$work/doc" "$DOC"
fi

worst=$(per_socket "$connected")
if [ "$(per_socket "$pinged")" -gt "$worst" ]; then worst=$(per_socket "$pinged"); fi
if [ "$worst" -gt "$LIMIT" ]; then
    step "FAILED: $worst bytes per socket, at most $LIMIT are allowed"
    exit 2
fi
step "passed: $worst bytes per socket, at most $LIMIT are allowed"
