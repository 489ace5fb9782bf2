#!/usr/bin/env bash
# Images without Docker: one binary, the libraries it is linked to, certificates and one unprivileged user.
#   image.sh pack NAME:TAG BINARY ARCHIVE   writes a docker archive, the same bytes for the same contents
#   image.sh load NAME:TAG ARCHIVE          imports it into the node, unless that very image is there
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"

pack() {
    local name=$1 binary=$2 archive=$3 work root digest entry library
    entry=$(basename "$binary")
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now
    trap "rm -rf '$work'" EXIT
    root=$work/root
    mkdir -p "$root"/{etc/ssl/certs,tmp,usr/bin}
    chmod 1777 "$root/tmp"
    install -m 755 "$binary" "$root/usr/bin/$entry"
    { ldd "$binary" 2> /dev/null | grep -o '/[^ ]*' || true; } | sort -u | while IFS= read -r library; do
        install -D -m 755 "$(readlink -f "$library")" "$root$library"
    done
    if [ -e /etc/ssl/certs/ca-certificates.crt ]; then install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"; fi
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > "$root/etc/passwd"
    echo 'nonroot:x:65532:' > "$root/etc/group"
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
    local fixed=(--sort=name --owner=0 --group=0 --numeric-owner --mtime=@0)
    mkdir "$work/image"
    tar -C "$root" "${fixed[@]}" -cf "$work/layer.tar" .
    digest=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    mkdir "$work/image/$digest"
    mv "$work/layer.tar" "$work/image/$digest/layer.tar"
    local architecture
    architecture=$(uname -m); architecture=${architecture/x86_64/amd64}; architecture=${architecture/aarch64/arm64}
    cat > "$work/image/config.json" <<J
{"architecture":"$architecture","os":"linux","config":{"User":"65532:65532","Entrypoint":["/usr/bin/$entry"],"Env":["SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"]},"rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
J
    echo "[{\"Config\":\"config.json\",\"RepoTags\":[\"$name\"],\"Layers\":[\"$digest/layer.tar\"]}]" > "$work/image/manifest.json"
    tar -C "$work/image" "${fixed[@]}" -cf "$archive.new" .
    mv "$archive.new" "$archive"
    say "$name: $(($(stat -c %s "$archive") / 1000)) kB"
}

load() {
    local name=$1 archive=$2 init mark stamp
    init=$(node_init)
    [ -n "$init" ] || die "no node is up: make cluster-up"
    # Which bytes the node was given under this name; gone with the node.
    mark=$NODE/images/$(tr '/:' '__' <<< "$name")
    stamp=$(sha256sum "$archive" | cut -d' ' -f1)
    mkdir -p "$NODE/images"
    [ "$(cat "$mark" 2> /dev/null)" != "$stamp" ] || return 0
    nsenter -t "$init" -m -p -n ctr --address /run/containerd.sock -n k8s.io images import "$archive"
    echo "$stamp" > "$mark"
}

case ${1:-} in
    pack | load) "$@" ;;
    *) die "usage: image.sh pack NAME:TAG BINARY ARCHIVE | load NAME:TAG ARCHIVE" ;;
esac
