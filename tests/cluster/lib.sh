# Shared by the scripts of this folder and of images/: where things are, how to speak, how to run and stop processes.
# Sourced, never run.

set -euo pipefail
shopt -s nullglob

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HERE=$REPO/tests/cluster
CLUSTER=${CLUSTER:-local}                   # local, kind or current
CLUSTER_DIR=${CLUSTER_DIR:-$REPO/.cluster} # all state of the cluster, and nothing else
case $CLUSTER_DIR in /*) ;; *) CLUSTER_DIR=$PWD/$CLUSTER_DIR ;; esac
CACHE=${WSFLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wsfleet}
NODES=${NODES:-$(cat "$CLUSTER_DIR/nodes" 2>/dev/null || echo 2)}

BRIDGE=wsf0
API_ADDRESS=198.18.0.1 # the bridge's own address: pods and this machine reach it, nobody else does
API_PORT=6443
SERVICE_RANGE=198.19.0.0/16
DNS_ADDRESS=198.19.0.10
ETCD_PORT=12379
ETCD_PEER_PORT=12380

# a proxy must not stand between the parts of the cluster
export NO_PROXY="127.0.0.1,localhost,198.18.0.0/15,.svc,.cluster.local${NO_PROXY:+,$NO_PROXY}"
export no_proxy=$NO_PROXY
export PATH=$CLUSTER_DIR/bin:$PATH:/usr/sbin:/sbin # containerd, iptables and ip live in sbin

started_at=$SECONDS
step() { printf '\033[2m%4ds\033[0m  %s\n' $((SECONDS - started_at)) "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf '       %s\n' "$hint" >&2; done
    exit 1
}

# wait_for SECONDS WHAT COMMAND...: polls until the command succeeds; false at the deadline.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ]; then
            step "gave up waiting for $what"
            return 1
        fi
        sleep 0.2
    done
}

# note_new FILE PATH...: writes down which of the paths don't exist yet, for drop_new to remove; kept if FILE exists.
note_new() {
    local file=$1 path
    shift
    [ ! -f "$file" ] || return 0
    for path in "$@"; do [ -e "$path" ] || echo "$path"; done >"$file"
}

# drop_new FILE: removes what of the noted paths came to be: sockets of what was killed, and empty folders.
drop_new() {
    local path
    [ -f "$1" ] || return 0
    while read -r path; do
        [ ! -d "$path" ] || find "$path" -depth \( -type s -o -type d \) -delete 2>/dev/null || true
    done <"$1"
    rm "$1"
}

# put FILE: replaces the file by standard input, only when it differs (kube-proxy ends when its file is written).
put() {
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "the local cluster needs root (bridge, mounts, cgroups)" \
        "run it as root: sudo -E env PATH=\"\$PATH\" make $1" "or, where Docker is: make $1 CLUSTER=kind"
}

# One command at a time works on a cluster; daemons must not inherit descriptor 9.
lock() {
    mkdir -p "$CLUSTER_DIR"
    exec 9>"$CLUSTER_DIR/lock"
    flock -n 9 || {
        step "waiting for another command that works on this cluster"
        flock 9
    }
}

# --- processes: recorded as "pid start-time", so that a pid that was given away again is never taken for ours

# Empty for a process that is gone, or is dead and not yet reaped.
start_time() { sed -n 's/^.*) \([^ZX] .*\)/\1/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# pid_of NAME: the pid of the recorded process when it still runs, else false.
pid_of() {
    local pid start
    [ -f "$CLUSTER_DIR/pids/$1" ] || return 1
    read -r pid start <"$CLUSTER_DIR/pids/$1"
    [ -n "$start" ] && [ "$(start_time "$pid")" = "$start" ] || return 1
    echo "$pid"
}

# start NAME COMMAND...: runs the command as a daemon, unless it already runs.
start() {
    local name=$1 pid
    shift
    pid_of "$name" >/dev/null && return
    (
        cd "$CLUSTER_DIR"
        exec setsid nohup "$@" >>"logs/$name.log" 2>&1 </dev/null 9>&-
    ) &
    pid=$!
    echo "$pid $(start_time $pid)" >"$CLUSTER_DIR/pids/$name"
}

# stop NAME SIGNAL: ends a recorded process and waits for it, with SIGKILL after five seconds.
stop() {
    local pid
    if pid=$(pid_of "$1"); then
        kill "-$2" "$pid" 2>/dev/null || true
        wait_for 5 "the end of $1" eval "! pid_of $1" || kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$CLUSTER_DIR/pids/$1"
}

# explain NAME...: the last lines of the logs, for an error.
explain() {
    for name in "$@"; do
        [ -s "$CLUSTER_DIR/logs/$name.log" ] || continue
        echo "--- last lines of $CLUSTER_DIR/logs/$name.log" >&2
        tail -n 8 "$CLUSTER_DIR/logs/$name.log" >&2
    done
}

kctl() { kubectl --kubeconfig "$CLUSTER_DIR/kubeconfig" "$@"; }
containerd_socket() { echo "$CLUSTER_DIR/node-$1/containerd/containerd.sock"; }
node_containerd() { ctr -a "$(containerd_socket "$1")" -n k8s.io "${@:2}"; }
