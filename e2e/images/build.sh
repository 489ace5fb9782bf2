#!/usr/bin/env bash
# Builds drover-worker and drover-operator as they ship, makes their images and gives them to the cluster.
# $DROVER_RUN/images.env then has DROVER_IMAGE_REGISTRY and DROVER_IMAGE_TAG: the tag is a hash of the binaries.
#   build.sh tests   the image of the tests' handler too, named by DROVER_TEST_HANDLER_IMAGE in the same file
#   DROVER_REGISTRY  with a cluster of your own: the images were pushed there (make push), nothing is built
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
names=(drover-operator drover-worker)
own_target

images_env() { printf "export DROVER_IMAGE_REGISTRY='%s'\nexport DROVER_IMAGE_TAG='%s'\n" "$1" "$2" > "$RUN/images.env"; }

compile() { cargo build --manifest-path "$REPO/Cargo.toml" --release --bin drover-operator --bin drover-worker; }

version() { awk -F'"' '/^version/ { print $2; exit }' "$REPO/Cargo.toml"; }

cluster=$(the_cluster)
if [ "$cluster" = context ]; then
    [ -n "${DROVER_REGISTRY:-}" ] || die "DROVER_REGISTRY is missing: the registry that make push REGISTRY=… filled for the cluster of DROVER_CONTEXT"
    images_env "$DROVER_REGISTRY" "${DROVER_TAG:-$(version)}"
    say "images: $DROVER_REGISTRY/{drover-operator,drover-worker}:${DROVER_TAG:-$(version)}"
    exit 0
fi

command -v cargo > /dev/null || die "Rust is missing: install it with  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
locked images
step "images: compile" compile
tag=$(for name in "${names[@]}"; do sha256sum < "$TARGET/release/$name"; done | sha256sum | cut -c1-12)
mkdir -p "$CACHE/images"
for name in "${names[@]}"; do
    archive=$CACHE/images/$name-$tag.tar
    if [ ! -e "$archive" ]; then
        find "$CACHE/images" -name "$name-*.tar" -delete
        "$REPO/e2e/images/image.sh" pack "localhost/$name:$tag" "$TARGET/release/$name" "$archive"
    fi
    if [ "$cluster" = kind ]; then
        # Not tried: no Docker where this was written.
        kind load image-archive --name drover "$archive"
    else
        step "images: $name:$tag" "$REPO/e2e/images/image.sh" load "localhost/$name:$tag" "$archive"
    fi
done
images_env localhost "$tag"

handler() { cargo build --manifest-path "$REPO/Cargo.toml" --workspace --bin drover-killer; }

if [ "${1:-}" = tests ] && [ "$cluster" = node ]; then
    step "images: compile the tests' handler" handler
    tag=$(sha256sum < "$TARGET/debug/drover-killer" | cut -c1-12)
    archive=$CACHE/images/drover-killer-$tag.tar
    if [ ! -e "$archive" ]; then
        find "$CACHE/images" -name 'drover-killer-*.tar' -delete
        "$REPO/e2e/images/image.sh" pack "localhost/drover-killer:$tag" "$TARGET/debug/drover-killer" "$archive"
    fi
    step "images: drover-killer:$tag" "$REPO/e2e/images/image.sh" load "localhost/drover-killer:$tag" "$archive"
    echo "export DROVER_TEST_HANDLER_IMAGE='localhost/drover-killer:$tag'" >> "$RUN/images.env"
fi
