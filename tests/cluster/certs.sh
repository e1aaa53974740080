# The cluster's own certificate authority and one certificate per part, so that every client, in a pod or outside,
# verifies the API server, and the audit log names who wrote. Sourced by up.sh.

# issue NAME SUBJECT [SAN]: certs/NAME.{key,crt}, kept while it is valid for another week.
issue() {
    local base=$CLUSTER_DIR/certs/$1 use=clientAuth
    openssl x509 -in "$base.crt" -noout -checkend 604800 >/dev/null 2>&1 && return
    [ -z "${3:-}" ] || use=clientAuth,serverAuth
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$base.key" 2>/dev/null
    openssl req -new -key "$base.key" -subj "$2" -out "$base.csr"
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" "extendedKeyUsage=$use" \
        ${3:+"subjectAltName=$3"} >"$base.ext"
    openssl x509 -req -in "$base.csr" -CA "$CLUSTER_DIR/certs/ca.crt" -CAkey "$CLUSTER_DIR/certs/ca.key" -CAcreateserial \
        -days 365 -sha256 -extfile "$base.ext" -out "$base.crt" 2>/dev/null
    rm "$base.csr" "$base.ext"
}

# kubeconfig_for NAME FILE: a kubeconfig that holds its certificates itself.
kubeconfig_for() {
    local certs=$CLUSTER_DIR/certs
    cat >"$2" <<END
apiVersion: v1
kind: Config
current-context: wsfleet
contexts: [{name: wsfleet, context: {cluster: wsfleet, user: $1}}]
clusters:
- name: wsfleet
  cluster:
    server: https://$API_ADDRESS:$API_PORT
    certificate-authority-data: $(base64 -w0 "$certs/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$certs/$1.crt")
    client-key-data: $(base64 -w0 "$certs/$1.key")
END
    chmod 600 "$2"
}

make_certs() {
    local certs=$CLUSTER_DIR/certs n address name
    mkdir -p "$certs" "$CLUSTER_DIR/kubeconfigs"
    chmod 700 "$certs" "$CLUSTER_DIR/kubeconfigs"
    if [ ! -f "$certs/ca.crt" ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=wsfleet-test-ca \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
            -keyout "$certs/ca.key" -out "$certs/ca.crt" 2>/dev/null
    fi
    [ -f "$certs/sa.key" ] || openssl genrsa -out "$certs/sa.key" 2048 2>/dev/null
    issue apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,$(
        echo "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:198.19.0.1,IP:$API_ADDRESS,IP:127.0.0.1")"
    issue admin /O=system:masters/CN=admin
    issue apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    for name in controller-manager scheduler proxy; do issue $name /CN=system:kube-$name; done
    for n in $(seq "$NODES"); do
        address=$(node_address "$n")
        issue "node-$n" "/O=system:nodes/CN=system:node:node-$n" "DNS:node-$n,IP:$address"
        kubeconfig_for "node-$n" "$CLUSTER_DIR/kubeconfigs/node-$n"
    done
    for name in controller-manager scheduler proxy; do kubeconfig_for $name "$CLUSTER_DIR/kubeconfigs/$name"; done
    kubeconfig_for admin "$CLUSTER_DIR/kubeconfig"
}
