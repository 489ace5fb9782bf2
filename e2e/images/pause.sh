#!/usr/bin/env bash
# The image localhost/pause:1, into the node.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
mkdir -p "$CACHE/images"
[ "$CACHE/images/pause" -nt "$REPO/e2e/images/pause/pause.c" ] || gcc -static -Os -s -o "$CACHE/images/pause" "$REPO/e2e/images/pause/pause.c"
"$REPO/e2e/images/image.sh" pack localhost/pause:1 "$CACHE/images/pause" "$CACHE/images/pause.tar"
"$REPO/e2e/images/image.sh" load localhost/pause:1 "$CACHE/images/pause.tar"
