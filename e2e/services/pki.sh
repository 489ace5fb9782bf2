#!/usr/bin/env bash
# The tests' own certificates, in the directory named: an authority, the servers' certificate for the node's address,
# and those that must be refused: expired, for another name, of another authority.
set -euo pipefail
mkdir -p "$1"; cd "$1"
key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)

authority() {
    openssl req -x509 "${key[@]}" -keyout "$1.key" -out "$1.crt" -days 3650 -subj "/CN=Drover tests, $1" \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
}

# certificate NAME AUTHORITY ALTERNATIVE-NAMES [START END]: with dates it is valid in that time only.
certificate() {
    local work
    work=$(mktemp -d)
    openssl req "${key[@]}" -keyout "$1.key" -out "$work/csr" -subj "/CN=$1"
    printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$3" > "$work/ext"
    touch "$work/index"
    printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\nunique_subject=no\npolicy=p\n[p]\ncommonName=supplied\n' "$work" "$work" > "$work/conf"
    openssl ca -batch -notext -config "$work/conf" -cert "$2.crt" -keyfile "$2.key" -in "$work/csr" -out "$1.crt" -extfile "$work/ext" \
        -startdate "${4:-20200101000000Z}" -enddate "${5:-20491231000000Z}"
    rm -rf "$work"
}

authority ca
authority otherca
certificate server ca 'IP:10.77.0.1,IP:127.0.0.1'
certificate expired ca 'IP:10.77.0.1' 20200101000000Z 20200201000000Z
certificate wrongname ca 'DNS:elsewhere.example'
certificate otherserver otherca 'IP:10.77.0.1'
chmod 644 ./*.key
