#!/usr/bin/env bash
# Proves that down leaves nothing: compares the machine before `up` and after `down`, with pods, a service and a killed
# process in between. Needs that no cluster is up. Takes about a minute.
. "$(dirname "$0")/lib.sh"
. "$HERE/local.sh"
need_root cluster-selftest
any_process && die "the cluster is up" "this test starts and ends one: make cluster-down"

# everything that a cluster changes on a machine, one thing a line
footprint() {
    ip -o link | awk '{print "link", $2}'
    ip -o addr | awk '{print "address", $2, $4}'
    { iptables-save; ip6tables-save; } 2>/dev/null | grep -E '^-A|^:[A-Z-]+ - ' | sed 's/\[.*\]//; s/^/rule /'
    awk '{print "mount", $2}' /proc/mounts
    find /sys/fs/cgroup -maxdepth 3 -type d -name '*k8s*' -o -maxdepth 3 -type d -name 'kube*' | sed 's/^/cgroup /'
    find /run /var/lib /var/log /opt /etc /usr/libexec -maxdepth 3 2>/dev/null | grep -vE '/(apt|dpkg)|^/run/mount' | sed 's/^/path /'
    ss -Hltn | awk '{print "port", $4}' | grep -E ':(6443|123(79|80)|102[0-9]{2})$' || true
    ps -eo pid=,comm= | grep -E 'kube|etcd|containerd|coredns|pause' | sed 's/^ */process /' || true
    for setting in net/ipv4/ip_forward net/ipv4/conf/all/route_localnet net/bridge/bridge-nf-call-iptables vm/overcommit_memory \
        kernel/panic kernel/panic_on_oops net/netfilter/nf_conntrack_tcp_timeout_established net/netfilter/nf_conntrack_tcp_timeout_close_wait; do
        echo "setting $setting $(cat /proc/sys/$setting 2>/dev/null || true)"
    done
}

before=$(footprint | sort)
"$HERE/up.sh"
kctl create deployment probe --image=wsfleet.test/pause:1 --replicas=4 >/dev/null
kctl expose deployment probe --port=80 --type=NodePort >/dev/null
kctl rollout status deployment/probe --timeout=60s
step "killing a kubelet and the scheduler: up must bring them back"
kill -KILL "$(pid_of kubelet-2)" "$(pid_of kube-scheduler)"
"$HERE/up.sh" >/dev/null
local_healthy || die "the cluster was not repaired"
kctl delete deployment probe --wait=false >/dev/null # pods may be in any state when the cluster ends
"$HERE/down.sh"
after=$(footprint | sort)
left=$(diff <(echo "$before") <(echo "$after") || true)
[ -z "$left" ] || die "down left something (> is new, < is gone):" "$left"
step "down left nothing behind"
