#!/usr/bin/env bash
# Keys, certificates and kubeconfigs of the node, in the directory named.
set -euo pipefail
mkdir -p "$1"; cd "$1"
umask 077
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

authority() { openssl req -x509 "${key[@]}" -keyout "$1.key" -out "$1.crt" -days 3650 -subj "/CN=$1"; }

# certificate NAME SUBJECT AUTHORITY USE [ALTERNATIVE NAMES]
certificate() {
    openssl req "${key[@]}" -keyout "$1.key" -out "$1.csr" -subj "$2"
    { echo "extendedKeyUsage=$4"; [ -z "${5:-}" ] || echo "subjectAltName=$5"; } > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
    rm "$1.csr" "$1.ext"
}

authority ca
authority front
names='IP:127.0.0.1,IP:10.77.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc'
certificate apiserver '/CN=kube-apiserver' ca serverAuth "$names"
certificate apiserver-kubelet '/O=system:masters/CN=kubelet-client' ca clientAuth
certificate kubelet-server '/CN=node' ca serverAuth 'IP:10.77.0.1,DNS:node'
certificate front-client '/CN=front-proxy-client' front clientAuth
certificate admin '/O=system:masters/CN=admin' ca clientAuth
certificate kubelet '/O=system:nodes/CN=system:node:node' ca clientAuth
certificate controller-manager '/CN=system:kube-controller-manager' ca clientAuth
certificate scheduler '/CN=system:kube-scheduler' ca clientAuth
certificate proxy '/CN=system:kube-proxy' ca clientAuth
openssl genrsa -out sa.key 2048
openssl rsa -in sa.key -pubout -out sa.pub

# Whole in themselves, so that a copy works anywhere on the machine.
for user in admin kubelet controller-manager scheduler proxy; do
    cat > "$user.conf" <<Y
apiVersion: v1
kind: Config
clusters:
- name: drover
  cluster: { server: "https://10.77.0.1:6443", certificate-authority-data: $(base64 -w0 ca.crt) }
users:
- name: $user
  user: { client-certificate-data: $(base64 -w0 "$user.crt"), client-key-data: $(base64 -w0 "$user.key") }
contexts:
- name: drover
  context: { cluster: drover, user: $user }
current-context: drover
Y
done
