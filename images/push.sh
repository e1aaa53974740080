#!/usr/bin/env bash
# Pushes the images to IMAGE_REGISTRY, for CLUSTER=current. Log in first, with `buildah login` (or `docker login`).
. "$(dirname "$0")/../tests/cluster/lib.sh"

[ -n "${IMAGE_REGISTRY:-}" ] || die "IMAGE_REGISTRY is not set" "for example: make images-push IMAGE_REGISTRY=registry.example.com/wsfleet"
store=$(mktemp -d "$CLUSTER_DIR/images/store.XXXXXX")
trap 'rm -rf "$store"' EXIT
bud() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }

for archive in "$CLUSTER_DIR"/images/*.tar; do
    name=$(basename "$archive" .tar) # gateway-dev
    target=$IMAGE_REGISTRY/${name%-*}:${name##*-}
    step "pushing $target"
    id=$(bud pull -q "oci-archive:$archive")
    bud push -q "$id" "docker://$target"
done
