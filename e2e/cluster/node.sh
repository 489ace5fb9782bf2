#!/usr/bin/env bash
# PID 1 of the node, in namespaces of its own: hides what the node would change of the machine, writes the
# configuration, starts everything and reaps. Its end is the end of all that it started.
set -euo pipefail
N=$1 BIN=$2 P=$1/pki

# Who starts us joins us to the network; if that one was killed, we go too.
for _ in $(seq 1500); do
    [ ! -e "$N/network.ready" ] || break
    sleep 0.02
done
[ -e "$N/network.ready" ] || exit 1

mount --make-rprivate /
# Sockets, pod network namespaces, container logs: they live as long as the node does.
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log

# kubelet insists on these values; the machine keeps its own.
mkdir -p "$N/sysctl"
for pair in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    file=$N/sysctl/$(tr / _ <<< "${pair%=*}")
    echo "${pair#*=}" > "$file"
    mount --bind "$file" "/proc/sys/${pair%=*}"
done

mkdir -p "$N"/{etcd,containerd,kubelet,podlogs,cni,ipam,volumeplugins,apiserver}
echo '# the cluster has no DNS: everything in it is addressed by number' > "$N/resolv.conf"
cat > "$N/cni/10-drover.conflist" <<Y
{"cniVersion":"1.0.0","name":"drover","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"isDefaultGateway":true,"ipMasq":false,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$N/ipam","ranges":[[{"subnet":"10.244.0.0/24"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
Y
cat > "$N/containerd.toml" <<Y
version = 2
root = "$N/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$N/cni"
Y
cat > "$N/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $P/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $P/kubelet-server.crt
tlsPrivateKeyFile: $P/kubelet-server.key
address: 10.77.0.1
cgroupDriver: cgroupfs
cgroupRoot: /drover
cgroupsPerQOS: true
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd.sock
resolvConf: $N/resolv.conf
podLogsDir: $N/podlogs
volumePluginDir: $N/volumeplugins
maxPods: 60
healthzBindAddress: 127.0.0.1
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
Y
cat > "$N/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $P/proxy.conf}
mode: nftables
clusterCIDR: 10.244.0.0/16
hostnameOverride: node
nodePortAddresses: ["10.77.0.1/32"]
conntrack: {maxPerCore: 0, min: 0}
Y

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    # One hierarchy (cgroup v2): the controllers are handed down to the node's. Not tried.
    mkdir -p /sys/fs/cgroup/drover
    for group in /sys/fs/cgroup /sys/fs/cgroup/drover; do
        tr ' ' '\n' < "$group/cgroup.controllers" | while read -r controller; do
            echo "+$controller" > "$group/cgroup.subtree_control" || true
        done
    done
else
    for controller in /sys/fs/cgroup/*/; do
        [ ! -e "$controller/cgroup.controllers" ] || continue
        mkdir -p "$controller/drover"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$controller/$file" ] || cat "$controller/$file" > "$controller/drover/$file"
        done
    done
fi

start() { # NAME COMMAND…
    local name=$1
    shift
    "$@" > "$N/log/$name.log" 2>&1 &
}

start containerd containerd -c "$N/containerd.toml"
start etcd "$BIN/etcd" --data-dir "$N/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start apiserver "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --bind-address 10.77.0.1 --advertise-address 10.77.0.1 --secure-port 6443 --cert-dir "$N/apiserver" \
    --tls-cert-file "$P/apiserver.crt" --tls-private-key-file "$P/apiserver.key" --client-ca-file "$P/ca.crt" \
    --kubelet-client-certificate "$P/apiserver-kubelet.crt" --kubelet-client-key "$P/apiserver-kubelet.key" \
    --kubelet-certificate-authority "$P/ca.crt" --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$P/sa.pub" \
    --service-account-signing-key-file "$P/sa.key" --service-cluster-ip-range 10.96.0.0/16 \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --anonymous-auth=false --allow-privileged=true \
    --requestheader-client-ca-file "$P/front.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-extra-headers-prefix X-Remote-Extra- --requestheader-group-headers X-Remote-Group \
    --requestheader-username-headers X-Remote-User \
    --proxy-client-cert-file "$P/front-client.crt" --proxy-client-key-file "$P/front-client.key"

# The others exit when they start before these answer.
until [ -S /run/containerd.sock ] && curl -sf --cacert "$P/ca.crt" --cert "$P/admin.crt" --key "$P/admin.key" https://10.77.0.1:6443/readyz > /dev/null; do
    sleep 0.1
done
start controller-manager "$BIN/kube-controller-manager" --kubeconfig "$P/controller-manager.conf" \
    --authentication-kubeconfig "$P/controller-manager.conf" --authorization-kubeconfig "$P/controller-manager.conf" \
    --leader-elect=false --use-service-account-credentials --service-account-private-key-file "$P/sa.key" \
    --root-ca-file "$P/ca.crt" --cluster-signing-cert-file "$P/ca.crt" --cluster-signing-key-file "$P/ca.key" --bind-address 127.0.0.1
start scheduler "$BIN/kube-scheduler" --kubeconfig "$P/scheduler.conf" --authentication-kubeconfig "$P/scheduler.conf" \
    --authorization-kubeconfig "$P/scheduler.conf" --leader-elect=false --bind-address 127.0.0.1
start kubelet "$BIN/kubelet" --config "$N/kubelet.yaml" --kubeconfig "$P/kubelet.conf" --hostname-override node \
    --node-ip 10.77.0.1 --root-dir "$N/kubelet" --cert-dir "$N/kubelet/pki"
start proxy "$BIN/kube-proxy" --config "$N/proxy.yaml"

# Orphans of the pods become ours: wait reaps them.
while :; do
    wait -n || true
    sleep 0.2
done
