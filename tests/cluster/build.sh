#!/usr/bin/env bash
# Builds the programs of the local cluster, and the NATS of the tests, with Go, into a cache outside the checkout, and prints where they are.
#   usage: build.sh kube|helm|coredns|nats-server
# Each is kept under a hash of what it is made of: a warm run only prints the path.
. "$(dirname "$0")/lib.sh"

HELM=v4.3.1
COREDNS=v1.12.4
NATS_SERVER=v2.12.2

check_go() {
    command -v go >/dev/null || die "Go is needed to build Kubernetes, Helm, CoreDNS and nats-server" "install Go 1.26 or newer: https://go.dev/dl"
    local minor
    minor=$(go env GOVERSION | cut -d. -f2)
    # from 1.21 on, go fetches the toolchain that a module asks for
    [ "$minor" -ge 21 ] || die "$(go env GOVERSION) is too old" "install Go 1.26 or newer: https://go.dev/dl"
}

digest() { cat "$@" | sha256sum | cut -c1-16; }

# keep NAME OUTPUT COMMAND...: runs the command, which makes OUTPUT.new, and moves that into place.
keep() {
    local name=$1 output=$2
    shift 2
    step "building $name (minutes on a cold cache)"
    "$@" >"$output.log" 2>&1 || {
        tail -n 15 "$output.log" >&2
        die "$name could not be built" "the whole log: $output.log"
    }
    rm "$output.log"
    mv "$output.new" "$output"
    step "built $name"
}

make_kube() {
    local version k8s
    version=$(awk '$1 == "k8s.io/kubernetes" && NF == 2 {print $2}' "$HERE/kube/go.mod")
    local flags="-s -w"
    for k8s in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        flags+=" -X $k8s.gitVersion=$version -X $k8s.gitMajor=1 -X $k8s.gitMinor=$(cut -d. -f2 <<<"$version")"
        flags+=" -X $k8s.gitTreeState=clean -X $k8s.gitCommit=$version -X $k8s.buildDate=1970-01-01T00:00:00Z"
    done
    (cd "$HERE/kube" && nice -n 5 env CGO_ENABLED=1 go build -trimpath -ldflags "$flags" -o "$1.new" .)
}

# make_module OUTPUT MODULE@VERSION FLAGS: `go install` of one program, checked against Go's checksum database
make_module() {
    local place=$1.d
    rm -rf "$place"
    GOBIN=$place nice -n 5 go install -trimpath -ldflags "$3" "$2" && mv "$place"/* "$1.new" && rmdir "$place"
}

mkdir -p "$CACHE/bin"
exec 8>"$CACHE/bin/$1.lock"
flock 8
case ${1:-} in
    kube)
        output=$CACHE/bin/kube-$(digest "$HERE"/kube/* "$HERE/build.sh")
        [ -x "$output" ] || { check_go && keep "Kubernetes" "$output" make_kube "$output"; }
        ;;
    helm)
        output=$CACHE/bin/helm-$HELM
        [ -x "$output" ] || { check_go && keep "Helm $HELM" "$output" make_module "$output" "helm.sh/helm/v4/cmd/helm@$HELM" \
            "-s -w -X helm.sh/helm/v4/internal/version.version=$HELM"; }
        ;;
    coredns) # static: its image holds nothing else
        output=$CACHE/bin/coredns-$COREDNS
        export CGO_ENABLED=0
        [ -x "$output" ] || { check_go && keep "CoreDNS $COREDNS" "$output" make_module "$output" "github.com/coredns/coredns@$COREDNS" "-s -w"; }
        ;;
    nats-server)
        output=$CACHE/bin/nats-server-$NATS_SERVER
        export CGO_ENABLED=0
        [ -x "$output" ] || { check_go && keep "nats-server $NATS_SERVER" "$output" make_module "$output" "github.com/nats-io/nats-server/v2@$NATS_SERVER" "-s -w"; }
        ;;
    *) die "usage: build.sh kube|helm|coredns|nats-server" ;;
esac
echo "$output"
