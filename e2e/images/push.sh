#!/usr/bin/env bash
# Builds both images with Docker and pushes them. Not tried: no Docker where this was written.
#   push.sh REGISTRY [TAG]   TAG: the version of the workspace unless given
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
registry=${1:-} tag=${2:-}
[ -n "$registry" ] || die "REGISTRY is missing: make push REGISTRY=registry.example/drover"
docker info > /dev/null 2>&1 || die "no Docker engine answers (docker info): images can be pushed from a machine that has one"
[ -n "$tag" ] || tag=$(awk -F'"' '/^version/ { print $2; exit }' "$REPO/Cargo.toml")
for name in drover-operator drover-worker; do
    docker build --target "$name" -t "$registry/$name:$tag" "$REPO"
    docker push "$registry/$name:$tag"
done
