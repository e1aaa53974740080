#!/usr/bin/env bash
# Installs the Debian packages that the cluster, the images and the tests need, when they are missing.
#   usage: deps.sh [cluster] [images] [tests] [bench] [client] [conformance] [fuzz]     (default: the first three)
# Services that a package would start by itself (redis, prometheus, containerd) are kept from starting.
. "$(dirname "$0")/lib.sh"

# program:package
cluster='containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables ip:iproute2
    conntrack:conntrack ethtool:ethtool openssl:openssl flock:util-linux gcc:gcc
    /usr/include/stdio.h:libc6-dev'
images='buildah:buildah redis-server:redis-server prometheus:prometheus gcc:gcc
    /usr/include/stdio.h:libc6-dev /etc/ssl/certs/ca-certificates.crt:ca-certificates'
tests='redis-server:redis-server prometheus:prometheus nft:nftables ip:iproute2 unshare:util-linux
    /usr/sbin/nginx:nginx-light /usr/sbin/haproxy:haproxy'
bench='node:nodejs npm:npm strace:strace redis-server:redis-server'
client='node:nodejs npm:npm redis-server:redis-server chromium:chromium
    /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core'
# asked for only when Python has no venv: Debian keeps its part in a package of its own
conformance='python3:python3 ensurepip:python3-venv'
# libFuzzer itself is C++
fuzz='g++:g++'

missing() {
    local entry program
    for entry in "$@"; do
        program=${entry%%:*}
        case $program in
            /*) [ -e "$program" ] ;;
            *) command -v "$program" >/dev/null ;;
        esac || echo "${entry#*:}"
    done | sort -u
}

install_packages() {
    command -v apt-get >/dev/null || die "these programs are missing, and there is no apt-get to install them with: $*" \
        "install them with this system's package manager (the names are Debian's)"
    [ "$(id -u)" -eq 0 ] || die "these packages are missing: $*" "sudo apt-get install --no-install-recommends $*"
    step "installing $*"
    local policy=/usr/sbin/policy-rc.d log
    log=$(mktemp)
    if [ ! -e $policy ]; then # Debian's way to say: install, but start nothing
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! { apt-get update -q && apt-get install -qy --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        die "apt-get could not install $*" "the whole log: $log"
    fi
    rm -f "$log"
    [ -d /run/systemd/system ] || return 0
    for package in "$@"; do # nor start it at the next boot
        case $package in redis-server | prometheus | containerd) systemctl disable --now -q "$package" || true ;; esac
    done
}

wanted=()
for group in "${@:-cluster images tests}"; do
    for name in $group; do
        # shellcheck disable=SC2206 # the lists are words
        case $name in cluster | images | tests | bench | client | conformance | fuzz) wanted+=(${!name}) ;; *) die "unknown group $name" ;; esac
    done
done
mapfile -t packages < <(missing "${wanted[@]}")
[ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
