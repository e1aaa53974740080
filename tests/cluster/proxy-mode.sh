#!/usr/bin/env bash
# Restarts the local cluster's kube-proxy in another mode, and waits until it serves, without a rule of the mode before.
# Connections that exist live on; new ones through services fail for a moment. `make cluster-up` begins with iptables.
#   usage: proxy-mode.sh iptables|nftables
. "$(dirname "$0")/lib.sh"
. "$HERE/local.sh"

[ "$CLUSTER" = local ] || die "only the local cluster's kube-proxy is ours to restart" "use CLUSTER=local"
case ${1:-} in
    iptables) other=nftables ;;
    nftables) other=iptables ;;
    *) die "usage: proxy-mode.sh iptables|nftables" ;;
esac
need_root cluster-up
lock
any_process || die "the cluster is not up" "start it: make cluster-up"

has_rules() {
    case $1 in
        iptables) iptables-save -t nat 2>/dev/null | grep -q '^:KUBE-SERVICES' ;;
        nftables) nft list table ip kube-proxy >/dev/null 2>&1 ;;
    esac
}
serves() { has_rules "$1" && ! has_rules "$2"; }

stop kube-proxy TERM
PROXY_MODE=$1 start_proxy
wait_for 30 "kube-proxy with $1" serves "$1" "$other" || {
    explain kube-proxy
    die "kube-proxy does not serve with $1 alone"
}
step "kube-proxy works with $1"
