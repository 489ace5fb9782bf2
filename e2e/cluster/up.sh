#!/usr/bin/env bash
# Brings the cluster up and prints where its kubeconfig is; one that is up is used as it is.
#   DROVER_CONTEXT  a context of your kubeconfig: that cluster is used, nothing is started
#   DROVER_RUN      where the node keeps its state (default: run/ in the cache)
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
here=$REPO/e2e/cluster
start=$EPOCHREALTIME

use_context() {
    "$here/build.sh" clients
    mkdir -p "$NODE"
    kubectl config view --raw --minify --flatten --context "$DROVER_CONTEXT" > "$NODE/kubeconfig.new" || die "there is no context $DROVER_CONTEXT in your kubeconfig"
    mv "$NODE/kubeconfig.new" "$NODE/kubeconfig"
    kubectl --kubeconfig "$NODE/kubeconfig" version > "$LOGS/context.log" 2>&1 || die "the cluster of context $DROVER_CONTEXT does not answer, see $LOGS/context.log"
}

# Not tried: no Docker where this was written.
use_kind() {
    "$here/build.sh" clients
    mkdir -p "$NODE"
    kind get clusters 2> /dev/null | grep -qx drover || step "kind: create the cluster" kind create cluster --name drover --wait 120s
    kind get kubeconfig --name drover > "$NODE/kubeconfig"
}

healthy() {
    [ -n "$(node_init)" ] && kubectl --kubeconfig "$NODE/kubeconfig" --request-timeout 5s get --raw /readyz && node_ready
}

node_ready() {
    [ "$(kubectl --kubeconfig "$NODE/kubeconfig" get node node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

pods_possible() { kubectl --kubeconfig "$NODE/kubeconfig" -n default get serviceaccount default; }

start_node() {
    mkdir -p "$NODE/log"
    echo "$NODE" > "$OWNER"
    cat /proc/sys/kernel/random/boot_id > "$NODE/boot_id"
    "$here/pki.sh" "$NODE/pki" > "$NODE/log/pki.log" 2>&1 || die "the certificates could not be made, see $NODE/log/pki.log"
    # The number is written before there is anything to clean.
    # shellcheck disable=SC2016 # expanded by that shell
    setsid bash -c 'echo $$ > "$1/unshare.pid"; exec unshare --net --mount --pid --fork --kill-child --mount-proc bash "$2/node.sh" "$1" "$3"' \
        _ "$NODE" "$here" "$BIN" > "$NODE/log/node.log" 2>&1 < /dev/null 9>&- &
    disown
    until_true 10 "the node's first process" "$NODE/log/node.log" has_own_network
    local init
    init=$(node_init)
    readlink "/proc/$init/ns/net" > "$NODE/netns"
    ip link add "$LINK" type veth peer name eth0 netns "$init"
    ip addr add "$HOST_IP/24" dev "$LINK"
    ip link set "$LINK" up
    nsenter -t "$init" -n sh -c "ip link set lo up; ip addr add $NODE_IP/24 dev eth0; ip link set eth0 up; echo 1 > /proc/sys/net/ipv4/ip_forward"
    ip route add "$POD_NET" via "$NODE_IP"
    ip route add "$SERVICE_NET" via "$NODE_IP"
    cp "$NODE/pki/admin.conf" "$NODE/kubeconfig"
    touch "$NODE/network.ready"
}

has_own_network() {
    local init
    init=$(node_init)
    [ -n "$init" ] && [ "$(readlink "/proc/$init/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

alive() { [ -n "$(node_init)" ] || hopeless "the node ended, see $NODE/log/"; }

answers() { alive; curl -sf --cacert "$NODE/pki/ca.crt" --cert "$NODE/pki/admin.crt" --key "$NODE/pki/admin.key" "https://$NODE_IP:6443/readyz"; }

case $(the_cluster) in
    context) use_context; say "cluster: context $DROVER_CONTEXT"; exit 0 ;;
    kind) use_kind; say "cluster: kind, kubeconfig $NODE/kubeconfig"; exit 0 ;;
esac

need_root
[ "$(uname -s)" = Linux ] || die "a node of our own needs Linux; name a cluster in DROVER_CONTEXT"
need_packages containerd=containerd runc=runc /usr/lib/cni/bridge=containernetworking-plugins nft=nftables iptables=iptables \
    conntrack=conntrack ip=iproute2 curl=curl openssl=openssl gcc=gcc /usr/lib/x86_64-linux-gnu/libc.a=libc6-dev
"$here/build.sh"
locked node
if healthy > /dev/null 2>&1; then
    say "cluster: already up, kubeconfig $NODE/kubeconfig"
    exit 0
fi
if [ -e "$OWNER" ] && [ "$(cat "$OWNER")" != "$NODE" ]; then
    DROVER_RUN=$(dirname "$(cat "$OWNER")") "$here/down.sh" --if-dead || die "another node is up, its state is in $(cat "$OWNER"): make cluster-down with DROVER_RUN=$(dirname "$(cat "$OWNER")") first"
fi
"$here/down.sh" --quiet --unlocked

# What fails from here on leaves its logs, and nothing that runs.
trap 'status=$?; [ $status -eq 0 ] || "$here/down.sh" --quiet --unlocked --keep-logs; exit $status' EXIT
say "cluster: a node of our own"
step "node: namespaces, certificates, network" start_node
step "node: API server answers" until_true 120 "the API server" "$NODE/log/apiserver.log" answers
step "node: image of the pod sandbox" "$REPO/e2e/images/pause.sh"
step "node: Ready" until_true 90 "the node is not Ready" "$NODE/log/kubelet.log" node_ready
step "node: service accounts" until_true 60 "no service account" "$NODE/log/controller-manager.log" pods_possible
say "cluster: up in $(seconds_since "$start") s, kubeconfig $NODE/kubeconfig"
