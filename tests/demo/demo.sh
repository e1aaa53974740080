#!/usr/bin/env bash
# From nothing to a managed fleet, and through everything that happens to one: growth, a rollout, shrinking. The clients
# keep the account. Exit status 0: nothing was lost, nothing was cut.
#   CLUSTER=local|kind|current   which Kubernetes (see tests/cluster/up.sh)
#   DEMO_NAMESPACE               where the fleet lives; default wsfleet-demo
#   DEMO_OPERATOR_NAMESPACE      where the operator lives; default wsfleet-system
#   DEMO_WATCH                   namespaces that the operator manages, with commas; default all
#   DEMO_URL                     where clients reach the Service, when its NodePort can't be, ws://HOST:PORT/ws
# Other arguments go to wsfleet-demo (--help lists them).
. "$(dirname "$0")/../cluster/lib.sh"

fleet=${DEMO_NAMESPACE:-wsfleet-demo}
system=${DEMO_OPERATOR_NAMESPACE:-wsfleet-system}
release=wsfleet
cd "$REPO"

part() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# tell COMMAND...: shows a command that a person would type, and runs it.
tell() {
    printf '$ %s\n' "$*"
    "$@"
}
apply() { # FILE: an example, with the images of this cluster
    printf '$ kubectl -n %s apply -f %s\n' "$fleet" "$1"
    sed -e "s#image: redis:7\$#image: $IMAGE_PREFIX/redis:7#" -e "s#image: prom/prometheus:.*#image: $IMAGE_PREFIX/prometheus:2#" "$1" |
        kubectl -n "$fleet" apply --server-side --force-conflicts -f - >/dev/null
}

part "A Kubernetes and the images"
"$HERE/up.sh"
. "$CLUSTER_DIR/env"
"$REPO/images/build.sh" redis prometheus gateway operator load
[ "$CLUSTER" != current ] || "$REPO/images/push.sh"

step "building the demo's clients"
# with the flags and in the folder of the images: what they share is compiled once
target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$REPO/target-images
RUSTFLAGS="-C target-feature=+crt-static" nice -n 10 cargo build --locked --release --target $target -q -p wsfleet-tests --bin wsfleet-demo

part "The operator, with Helm"
# the images' tags stay the same from build to build: an annotation makes the pods follow
key=$(cat "$CLUSTER_DIR"/images/operator-dev.key 2>/dev/null || echo unknown)
tell helm upgrade --install $release charts/wsfleet --namespace "$system" --create-namespace --wait --timeout 3m \
    --take-ownership --force-conflicts \
    --set "image.repository=$IMAGE_PREFIX/operator,image.tag=dev" \
    --set "gatewayImage.repository=$IMAGE_PREFIX/gateway,gatewayImage.tag=dev" \
    --set "test.image.repository=$IMAGE_PREFIX/load,test.image.tag=dev" \
    --set "log.format=text,podAnnotations.image=$key" ${DEMO_WATCH:+--set "watchNamespaces={$DEMO_WATCH}"} >/dev/null ||
    die "the chart could not be installed" "see: kubectl -n $system get pods,events"
kubectl -n "$system" get pods

part "A fleet"
kubectl get namespace "$fleet" >/dev/null 2>&1 || tell kubectl create namespace "$fleet"
# what an earlier demo left
kubectl -n "$fleet" delete wsc chat --ignore-not-found --timeout=60s >/dev/null
kubectl -n "$fleet" wait --for=delete pod -l wsfleet.dev/cluster=chat --timeout=180s >/dev/null
kubectl -n "$fleet" get secret chat-jwt >/dev/null 2>&1 ||
    tell kubectl -n "$fleet" create secret generic chat-jwt --from-literal=secret="$(openssl rand -hex 32)"
apply examples/redis.yaml
apply examples/prometheus.yaml
kubectl -n "$fleet" rollout status deployment/redis deployment/prometheus --timeout=120s >/dev/null
apply examples/chat.yaml

address=127.0.0.1
[ "$CLUSTER" = local ] || address=$(kubectl get nodes -o 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
status=0
"$CARGO_TARGET_DIR/$target/release/wsfleet-demo" --namespace "$fleet" --name chat --node-address "$address" \
    --next-image "$IMAGE_PREFIX/gateway:dev2" ${DEMO_URL:+--url "$DEMO_URL"} "$@" || status=$?

cat <<END

The cluster is still up. Try:
  . ${CLUSTER_DIR#"$REPO/"}/env
  kubectl -n $fleet get wsc chat -o wide -w                                  # keep this in sight while you
  kubectl -n $fleet patch wsc chat --type merge -p '{"spec":{"autoscaling":{"minReplicas":4}}}'
  kubectl -n $fleet delete pod -l wsfleet.dev/cluster=chat --wait=false      # drained by the gateways themselves
  kubectl drain node-2 --ignore-daemonsets --delete-emptydir-data            # then: kubectl uncordon node-2
  kubectl -n $fleet get events --field-selector regarding.kind=WebSocketCluster
  kubectl explain wsc.spec.drain
  helm test $release -n $system
$(
    if [ "$CLUSTER" = current ]; then
        echo "To remove all of it: kubectl delete namespace $fleet; helm uninstall $release -n $system; kubectl delete crd websocketclusters.wsfleet.dev"
    else
        echo "To remove all of it: make cluster-down${CLUSTER_HINT:-}"
    fi
)
END
exit $status
