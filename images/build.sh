#!/usr/bin/env bash
# Builds the images that the cluster runs, without Docker and without a registry, and gives them to the cluster that is up.
#   usage: build.sh [pause] [coredns] [redis] [prometheus] [gateway] [operator] [load]     (default: all)
#          build.sh programs      compiles what is in gateway, operator and load, and makes no image
# An image is wsfleet.test/NAME:TAG, kept as CLUSTER_DIR/images/NAME-TAG.tar (an OCI archive) beside a hash of what it is
# made of; what did not change is not built again.
# Optimising across crates takes minutes of each build: CARGO_PROFILE_RELEASE_LTO=off saves them while trying things out.
# CLUSTER=kind builds the same Dockerfiles with Docker; CLUSTER=current needs images-push afterwards.
. "$(dirname "$0")/../tests/cluster/lib.sh"
. "$HERE/local.sh"

OUT=$CLUSTER_DIR/images
TARGET=x86_64-unknown-linux-gnu
TARGET_DIR=$REPO/target-images

tags() {
    case $1 in
        gateway) echo dev dev2 ;; # the same program under a second name: a revision to roll out
        operator | load) echo dev ;;
        redis) echo 7 ;;
        prometheus) echo 2 ;;
        *) echo 1 ;;
    esac
}

# All of them, whichever is asked for: their dependencies are then always compiled with the same features, once.
build_programs() {
    command -v cargo >/dev/null || die "Rust is needed to build wsfleet" "https://rustup.rs"
    step "building the programs (release, static; minutes on a cold cache)"
    (cd "$REPO" && RUSTFLAGS="-C target-feature=+crt-static" CARGO_TARGET_DIR=$TARGET_DIR nice -n 10 cargo build --locked --release \
        --target $TARGET -p wsfleet-gateway -p wsfleet-operator -p wsfleet-load --bins) >"$OUT/cargo.log" 2>&1 || {
        tail -n 30 "$OUT/cargo.log" >&2
        die "wsfleet does not build" "the whole log: $OUT/cargo.log"
    }
}

program_of() {
    case $1 in
        pause)
            gcc -Os -static -s -o "$OUT/pause.bin" "$REPO/images/pause/pause.c"
            echo "$OUT/pause.bin"
            ;;
        coredns) "$HERE/build.sh" coredns ;;
        redis) command -v redis-server ;;
        prometheus) command -v prometheus ;;
        *) echo "$TARGET_DIR/$TARGET/release/wsfleet-$1" ;;
    esac
}
name_in_image() {
    case $1 in
        pause | coredns | prometheus) echo "$1" ;;
        redis) echo redis-server ;;
        *) echo "wsfleet-$1" ;;
    esac
}

# What else is in an image: name and program, and so on.
more_in_image() {
    case $1 in
        redis) echo redis-cli "$(command -v redis-cli)" sh "$(command -v sh)" sleep "$(command -v sleep)" ;;
    esac
}

# buildah with a storage of its own; what it makes elsewhere all the same is removed again
store=
bud() { buildah --root "$store/root" --runroot "$store/run" --storage-driver vfs "$@"; }
drop_store() {
    if [ -n "$store" ]; then
        rm -rf "$store"
        if grep -qx /var/lib/containers "$OUT/new-paths"; then rm -f /var/lib/containers/cache/blob-info-cache-v1.boltdb; fi
        if grep -qx /etc/cni "$OUT/new-paths"; then rm -f /etc/cni/net.d/cni.lock; fi
        drop_new "$OUT/new-paths"
    fi
    rm -f "$OUT/pause.bin"
}
trap drop_store EXIT

build_image() {
    local name=$1 program more key tag rootfs
    program=$(program_of "$name")
    read -ra more < <(more_in_image "$name") || true
    [ -f "$program" ] || die "there is no program for the image $name: $program"
    key=$(cat "$program" "$REPO/images/$name/Dockerfile" "$REPO/images/rootfs.sh" | sha256sum | cut -c1-16)
    for tag in $(tags "$name"); do
        [ -f "$OUT/$name-$tag.tar" ] && [ "$(cat "$OUT/$name-$tag.key" 2>/dev/null)" = "$key-$tag" ] && continue
        if [ -z "$store" ]; then
            note_new "$OUT/new-paths" /var/lib/containers /etc/cni
            store=$(mktemp -d "$OUT/store.XXXXXX")
        fi
        rootfs=$store/$name
        [ -d "$rootfs" ] || "$REPO/images/rootfs.sh" "$rootfs" "$(name_in_image "$name")" "$program" "${more[@]}"
        # the last stage of the published Dockerfile, with the files laid out above in place of its first stages
        tac "$REPO/images/$name/Dockerfile" | sed '/^FROM scratch$/q' | tac | sed 's#^COPY --from=build / /#COPY . /#' >"$store/Dockerfile"
        bud bud -q --isolation chroot --label "dev.wsfleet.tag=$tag" -f "$store/Dockerfile" -t "wsfleet.test/$name:$tag" "$rootfs" >"$OUT/build.log" 2>&1 &&
            bud push -q "wsfleet.test/$name:$tag" "oci-archive:$OUT/$name-$tag.tar.new:wsfleet.test/$name:$tag" >>"$OUT/build.log" 2>&1 || {
            tail -n 15 "$OUT/build.log" >&2
            die "the image $name:$tag could not be built"
        }
        mv "$OUT/$name-$tag.tar.new" "$OUT/$name-$tag.tar"
        echo "$key-$tag" >"$OUT/$name-$tag.key"
        step "image wsfleet.test/$name:$tag ($(du -h "$OUT/$name-$tag.tar" | cut -f1))"
    done
}

build_with_docker() {
    local name tag image first
    for name in "$@"; do
        image=wsfleet.test/$name
        case $name in pause | coredns) continue ;; esac # kind brings its own
        read -r first _ < <(tags "$name")
        docker build -f "$REPO/images/$name/Dockerfile" -t "$image:$first" "$REPO"
        [ "$name" != gateway ] || docker tag "$image:dev" "$image:dev2"
        for tag in $(tags "$name"); do kind load docker-image --name wsfleet "$image:$tag"; done
    done
}

[ $# -gt 0 ] || set -- pause coredns redis prometheus gateway operator load
mkdir -p "$OUT"
exec 7>"$OUT/lock"
flock 7
if [ "$*" = programs ]; then
    [ "$CLUSTER" = kind ] || build_programs
    exit
fi
if [ "$CLUSTER" = kind ]; then
    build_with_docker "$@"
    exit
fi
"$HERE/deps.sh" images
if printf '%s\n' "$@" | grep -qxE 'gateway|operator|load'; then build_programs; fi
for name in "$@"; do build_image "$name"; done
if [ "$CLUSTER" = local ]; then load_images; fi
