#!/usr/bin/env bash
# Builds Kubernetes, etcd, Helm and kubeconform from Go modules into the cache; what is there already is left alone.
#   build.sh [all|clients]   clients: kubectl, helm and kubeconform, enough for a cluster that exists
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/lib.sh"

what=${1:-all}
kubernetes=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy)
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' "$REPO/e2e/cluster/go/kubernetes/go.mod")
minor=${version#v1.}; minor=${minor%%.*}
flags='-s -w'
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
done
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false

# in_module DIRECTORY NAME PACKAGE FLAGS: the binary appears under its name only when it is whole.
in_module() {
    cd "$REPO/e2e/cluster/go/$1"
    go build -trimpath -ldflags "$4" -o "$BIN/.$2" "$3"
    mv "$BIN/.$2" "$BIN/$2"
}

installed() { # NAME PACKAGE@VERSION
    GOBIN=$BIN/.install go install -trimpath -ldflags '-s -w' "$2"
    mv "$BIN/.install/$1" "$BIN/$1"
}

check_go() {
    command -v go > /dev/null || die "Go $GO_MINIMUM or newer is missing: install it from https://go.dev/dl/ (tar -C /usr/local -xzf go…linux-amd64.tar.gz, then put /usr/local/go/bin in PATH)"
    local have
    have=$(go env GOVERSION); have=${have#go}
    [ "$(printf '%s\n' "$GO_MINIMUM" "$have" | sort -V | head -n 1)" = "$GO_MINIMUM" ] || die "Go $have is too old: $GO_MINIMUM or newer is needed, see https://go.dev/dl/"
}

missing() { local name; for name in "$@"; do [ -x "$BIN/$name" ] || return 0; done; return 1; }

names=(kubectl helm kubeconform)
[ "$what" = clients ] || names+=("${kubernetes[@]}" etcd)
missing "${names[@]}" || exit 0

locked build
mkdir -p "$BIN"
missing "${names[@]}" || exit 0
check_go
say "Building the cluster's binaries once, into $BIN (about 12 minutes on two cores when nothing is cached)"
for name in "${names[@]}"; do
    [ -x "$BIN/$name" ] && continue
    case $name in
        etcd) step "build etcd" in_module etcd etcd go.etcd.io/etcd/server/v3 '-s -w' ;;
        helm) step "build helm $HELM_VERSION" installed helm "helm.sh/helm/v4/cmd/helm@$HELM_VERSION" ;;
        kubeconform) step "build kubeconform $KUBECONFORM_VERSION" installed kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM_VERSION" ;;
        *) step "build $name $version" in_module kubernetes "$name" "k8s.io/kubernetes/cmd/$name" "$flags" ;;
    esac
done
rm -rf "$BIN/.install"
