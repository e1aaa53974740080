# The local cluster: etcd, the control plane, kube-proxy, and NODES kubelets with a containerd each (two that share one
# remove each other's pods). Sourced by up.sh, down.sh and status.sh.

node_address() { if [ "$1" -eq 1 ]; then echo $API_ADDRESS; else echo "198.18.255.$1"; fi; }
node_port() { echo $((10240 + $1 * 10)); }
processes() {
    echo etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy
    for n in $(seq "$NODES"); do echo "containerd-$n kubelet-$n"; done
}
any_process() { for name in $(processes); do pid_of "$name" && return; done >/dev/null; }

check_place() {
    case $CLUSTER_DIR in *[[:space:]:,]*) die "CLUSTER_DIR=$CLUSTER_DIR has a character that mounts can't have" "set CLUSTER_DIR to another folder" ;; esac
    # a unix socket's path holds 107 bytes, and containerd appends to this one
    [ ${#CLUSTER_DIR} -le 60 ] || die "the path $CLUSTER_DIR is too long for sockets in it" "set CLUSTER_DIR to a shorter one"
}

# What a fresh cluster needs must be free: nothing that somebody else started is ever touched.
check_free() {
    local owner ports port n
    if ip link show $BRIDGE >/dev/null 2>&1; then
        owner=$(cat "/sys/class/net/$BRIDGE/ifalias")
        die "the network device $BRIDGE exists${owner:+: the cluster of $owner}" \
            "use that one: export CLUSTER_DIR=${owner:-...}" "or stop it: CLUSTER_DIR=${owner:-...} make cluster-down"
    fi
    if iptables-save 2>/dev/null | grep -q '^:KUBE-'; then
        die "there are iptables rules of another Kubernetes on this machine" "stop that one first, or use it: CLUSTER=current"
    fi
    ports="$API_PORT $ETCD_PORT $ETCD_PEER_PORT 10257 10259 10256 10249"
    for n in $(seq "$NODES"); do ports+=" $(node_port "$n") $(($(node_port "$n") + 1))"; done
    for port in $ports; do
        [ -z "$(ss -Hltn "sport = :$port" | awk '{print $4}' | grep -E '^(0\.0\.0\.0|\*|\[::\]|127\.0\.0\.1|198\.18\..*):')" ] || die \
            "port $port is taken: $(ss -Hltnp "sport = :$port" | sed 's/.*users:/by /')" "stop that program, or use CLUSTER=kind or CLUSTER=current"
    done
}

# What the parts make outside CLUSTER_DIR, wherever that is.
note_outside() {
    local folder groups=()
    for folder in /sys/fs/cgroup /sys/fs/cgroup/*/; do
        [ ! -f "${folder%/}/cgroup.procs" ] || groups+=("${folder%/}/k8s.io")
    done
    note_new "$CLUSTER_DIR/new-paths" "${groups[@]}" /var/lib/kubelet /var/lib/cni /var/log/containers /var/log/pods /run/containerd
}

# set_kernel NAME VALUE: sets a kernel setting, and keeps the old value for down.
set_kernel() {
    local file=/proc/sys/$1
    [ -e "$file" ] || return 1
    grep -q "^$1 " "$CLUSTER_DIR/sysctl" 2>/dev/null || echo "$1 $(cat "$file")" >>"$CLUSTER_DIR/sysctl"
    echo "$2" >"$file"
}

link_tools() {
    local kube name
    mkdir -p "$CLUSTER_DIR/bin"
    kube=$("$HERE/build.sh" kube)
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        ln -sfn "$kube" "$CLUSTER_DIR/bin/$name"
    done
    link_helm
}
link_helm() {
    local helm
    helm=$("$HERE/build.sh" helm)
    ln -sfn "$helm" "$CLUSTER_DIR/bin/helm"
}
# For a cluster that is not ours to build: the kubectl that its user has.
link_clients() {
    local kubectl
    mkdir -p "$CLUSTER_DIR/bin"
    kubectl=$(type -aP kubectl | grep -v "^$CLUSTER_DIR/" | head -n 1) || die "kubectl is not installed" "https://kubernetes.io/docs/tasks/tools"
    ln -sfn "$kubectl" "$CLUSTER_DIR/bin/kubectl"
    link_helm
}

api_ready() { kctl get --raw /readyz --request-timeout=2s; }
nodes_ready() { [ "$(kctl get nodes --request-timeout=5s --no-headers | grep -cw Ready)" -eq "$NODES" ]; }
dns_ready() { [ "$(kctl -n kube-system get deployment coredns --request-timeout=5s -o 'jsonpath={.status.readyReplicas}')" -ge 1 ]; }
local_healthy() {
    local name
    for name in $(processes); do pid_of "$name" || return 1; done
    api_ready && nodes_ready && dns_ready
} >/dev/null 2>&1

start_network() {
    local n way
    if ! ip link show $BRIDGE >/dev/null 2>&1; then
        ip link add $BRIDGE type bridge
        ip link set $BRIDGE alias "$CLUSTER_DIR"
        ip addr add $API_ADDRESS/16 dev $BRIDGE
        ip link set $BRIDGE up
    fi
    # Docker, where it runs, drops what is forwarded unless a rule accepts it
    for way in -i -o; do
        iptables -C FORWARD $way $BRIDGE -j ACCEPT 2>/dev/null || iptables -A FORWARD $way $BRIDGE -j ACCEPT
    done
    for n in $(seq 2 "$NODES"); do ip addr replace "$(node_address "$n")/32" dev $BRIDGE; done
    set_kernel net/ipv4/ip_forward 1
    # the rest is what kube-proxy (NodePorts on 127.0.0.1) and the kubelets insist on: set here so that down restores it
    set_kernel net/ipv4/conf/all/route_localnet 1
    set_kernel vm/overcommit_memory 1
    set_kernel kernel/panic 10
    set_kernel kernel/panic_on_oops 1
}

start_control_plane() {
    local certs=$CLUSTER_DIR/certs configs=$CLUSTER_DIR/kubeconfigs
    start etcd etcd --data-dir etcd --unsafe-no-fsync --listen-client-urls "http://127.0.0.1:$ETCD_PORT" \
        --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-cluster "default=http://127.0.0.1:$ETCD_PEER_PORT"
    start kube-apiserver kube-apiserver --etcd-servers="http://127.0.0.1:$ETCD_PORT" --bind-address=$API_ADDRESS \
        --advertise-address=$API_ADDRESS --secure-port=$API_PORT --service-cluster-ip-range=$SERVICE_RANGE \
        --tls-cert-file="$certs/apiserver.crt" --tls-private-key-file="$certs/apiserver.key" --client-ca-file="$certs/ca.crt" \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local --service-account-key-file="$certs/sa.key" \
        --service-account-signing-key-file="$certs/sa.key" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --allow-privileged=true --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$certs/ca.crt" \
        --kubelet-client-certificate="$certs/apiserver-kubelet-client.crt" --kubelet-client-key="$certs/apiserver-kubelet-client.key" \
        --audit-policy-file="$HERE/config/audit.yaml" --audit-log-path="$CLUSTER_DIR/logs/audit.log" \
        --audit-log-maxsize=500 --audit-log-maxbackup=1
    wait_for 60 "the API server" api_ready || return 1
    start kube-controller-manager kube-controller-manager --kubeconfig="$configs/controller-manager" --bind-address=127.0.0.1 \
        --use-service-account-credentials --service-account-private-key-file="$certs/sa.key" --root-ca-file="$certs/ca.crt" \
        --allocate-node-cidrs=false --flex-volume-plugin-dir="$CLUSTER_DIR/volume-plugins"
    start kube-scheduler kube-scheduler --kubeconfig="$configs/scheduler" --bind-address=127.0.0.1
}

start_node() {
    local n=$1 d=$CLUSTER_DIR/node-$1 address port snapshotter=overlayfs file
    address=$(node_address "$n")
    port=$(node_port "$n")
    mkdir -p "$d"/{cni,containerd,kubelet,podlogs}
    # overlayfs does not stack on itself (a checkout inside a container)
    [ "$(stat -f -c %T "$d")" != overlayfs ] || snapshotter=native
    for file in containerd.toml kubelet.yaml bridge.conflist; do
        sed -e "s#@DIR@#$d#g; s#@CERTS@#$CLUSTER_DIR/certs#g; s#@N@#$n#g; s#@ADDR@#$address#g; s#@DNS@#$DNS_ADDRESS#g" \
            -e "s#@PORT@#$port#g; s#@HEALTHZ@#$((port + 1))#g; s#@SNAPSHOTTER@#$snapshotter#g" \
            -e "s#@FROM@#198.18.$((n * 10)).1#; s#@TO@#198.18.$((n * 10 + 9)).254#" "$HERE/config/$file" | put "$d/${file/bridge/cni/bridge}"
    done
    : >"$d/resolv.conf"
    start "containerd-$n" containerd -c "$d/containerd.toml"
    wait_for 30 "containerd of node-$n" node_containerd "$n" version || return 1
    load_images_into "$n"
    start "kubelet-$n" kubelet --config="$d/kubelet.yaml" --kubeconfig="$CLUSTER_DIR/kubeconfigs/node-$n" --root-dir="$d/kubelet" \
        --cert-dir="$d/kubelet/pki" --hostname-override="node-$n" --node-ip="$address" \
        --node-labels="topology.kubernetes.io/zone=zone-$n"
}

start_proxy() {
    local masquerade=true
    # where the kernel shows bridged packets to iptables, pods see each other's own addresses behind a service too
    [ -e /proc/sys/net/bridge ] || modprobe br_netfilter 2>/dev/null || true
    if set_kernel net/bridge/bridge-nf-call-iptables 1; then masquerade=false; fi
    sed -e "s#@KUBECONFIG@#$CLUSTER_DIR/kubeconfigs/proxy#; s#@MASQUERADE@#$masquerade#; s#@MODE@#${PROXY_MODE:-iptables}#" \
        "$HERE/config/kube-proxy.yaml" |
        put "$CLUSTER_DIR/kube-proxy.yaml"
    start kube-proxy kube-proxy --config="$CLUSTER_DIR/kube-proxy.yaml" # with it, its flags are ignored
}

start_local() {
    local n
    mkdir -p "$CLUSTER_DIR"/{logs,pids,images}
    echo "$NODES" >"$CLUSTER_DIR/nodes"
    note_outside
    step "network, certificates"
    start_network
    make_certs
    step "etcd, API server, controllers, scheduler"
    start_control_plane || {
        explain etcd kube-apiserver
        return 1
    }
    step "$NODES nodes"
    for n in $(seq "$NODES"); do
        start_node "$n" || {
            explain "containerd-$n"
            return 1
        }
    done
    kctl apply --server-side -f - >/dev/null <<END
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: wsfleet-test-proxy}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:node-proxier}
subjects: [{kind: User, name: system:kube-proxy}]
END
    start_proxy
    wait_for 60 "$NODES ready nodes" nodes_ready || {
        kctl get nodes >&2 || true
        explain kubelet-1 kubelet-2
        return 1
    }
    step "names for services (CoreDNS)"
    sed "s#@DNS@#$DNS_ADDRESS#" "$HERE/config/coredns.yaml" | kctl apply --server-side -f - >/dev/null
    wait_for 60 "CoreDNS" dns_ready || {
        kctl -n kube-system get pods,events >&2 || true
        return 1
    }
    step "the cluster is up"
}

# --- images: archives in CLUSTER_DIR/images, each with its content hash in NAME.key

load_images_into() {
    local n=$1 archive name
    local done=$CLUSTER_DIR/node-$n/images
    mkdir -p "$done"
    for archive in "$CLUSTER_DIR"/images/*.tar; do
        name=$(basename "$archive" .tar)
        cmp -s "${archive%.tar}.key" "$done/$name.key" && continue
        node_containerd "$n" image import "$archive" >/dev/null || die "node-$n did not take the image $name"
        cp "${archive%.tar}.key" "$done/$name.key"
        step "node-$n has the image $name"
    done
}
load_images() {
    local n
    for n in $(seq "$NODES"); do
        if pid_of "containerd-$n" >/dev/null; then load_images_into "$n"; fi
    done
}

# --- the end

# Ends every container of a node. Shims outlive containerd: they are found by the socket that they were given.
end_containers() {
    local n=$1 task shim
    [ -S "$(containerd_socket "$n")" ] && pid_of "containerd-$n" >/dev/null && {
        for task in $(node_containerd "$n" task ls -q); do
            node_containerd "$n" task kill -s SIGKILL "$task" || true
            node_containerd "$n" task delete -f "$task" || true
        done
    } >/dev/null 2>&1
    stop "containerd-$n" TERM
    for shim in $(shims "$n"); do kill -KILL "$shim" 2>/dev/null || true; done
}
shims() {
    local cmdline
    for cmdline in /proc/[0-9]*/cmdline; do
        { tr '\0' ' ' <"$cmdline"; } 2>/dev/null | grep -q -- "^[^ ]*containerd-shim.* -address $(containerd_socket "$1") " || continue
        cmdline=${cmdline#/proc/}
        echo "${cmdline%/cmdline}"
    done
}

# Removes what the parts leave outside CLUSTER_DIR.
sweep() {
    local family way link mount sandbox name value
    if [ -x "$CLUSTER_DIR/bin/kube-proxy" ] && [ -f "$CLUSTER_DIR/kube-proxy.yaml" ]; then
        kube-proxy --cleanup >>"$CLUSTER_DIR/logs/kube-proxy.log" 2>&1 || step "kube-proxy could not remove its iptables rules: see its log"
    fi
    for family in iptables ip6tables; do # what --cleanup leaves; check_free saw that none was there before
        if [ -d "$CLUSTER_DIR/kubeconfigs" ] && $family-save 2>/dev/null | grep -q KUBE-; then
            $family-save -c | grep -v KUBE- | $family-restore -c || step "rules named KUBE- are left in $family"
        fi
    done
    if [ "$(cat /sys/class/net/$BRIDGE/ifalias 2>/dev/null)" = "$CLUSTER_DIR" ]; then
        for way in -i -o; do iptables -D FORWARD $way $BRIDGE -j ACCEPT 2>/dev/null || true; done
        ip link del $BRIDGE
    fi
    awk -v d="$CLUSTER_DIR/" 'index($2, d) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do umount -l "$mount"; done
    for link in /var/log/containers/*; do
        case $(readlink "$link") in "$CLUSTER_DIR"/*) rm -f "$link" ;; esac
    done
    for sandbox in "$CLUSTER_DIR"/node-*/containerd/root/io.containerd.grpc.v1.cri/sandboxes/*; do
        rm -f /var/lib/cni/results/*-"$(basename "$sandbox")"-*
    done
    drop_new "$CLUSTER_DIR/new-paths"
    if [ -f "$CLUSTER_DIR/sysctl" ]; then
        while read -r name value; do echo "$value" >"/proc/sys/$name" || true; done <"$CLUSTER_DIR/sysctl"
    fi
}

local_down() {
    local n name
    mkdir -p "$CLUSTER_DIR"/{logs,pids}
    stop kube-proxy TERM
    for n in $(seq "$NODES"); do stop "kubelet-$n" TERM; done
    for n in $(seq "$NODES"); do end_containers "$n"; done
    stop kube-scheduler TERM
    stop kube-controller-manager TERM
    stop kube-apiserver KILL # its own graceful stop waits up to a minute for watches
    stop etcd TERM
    sweep
    # logs stay until the next start, images are a cache
    rm -rf "$CLUSTER_DIR"/{certs,kubeconfigs,kubeconfig,env,etcd,pids,nodes,sysctl,volume-plugins,kube-proxy.yaml} "$CLUSTER_DIR"/node-*
}
