#!/usr/bin/env bash
# Where things are, and how the scripts here speak, time, fail, lock and install. Sourced, never run.
# shellcheck disable=SC2034 # the names are for those who source this
set -euo pipefail

# Tools write messages that some waits look at.
export LC_ALL=C

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${DROVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drover}
RUN=${DROVER_RUN:-$CACHE/run}           # everything that runs writes below this
LOGS=$CACHE/log
NODE=$RUN/cluster                       # the node's own directory
TARGET=${CARGO_TARGET_DIR:-$CACHE/target}
# The node's addresses are the machine's, so there is one node per machine; this says whose it is.
OWNER=/run/drover-node
NODE_IP=10.77.0.1
HOST_IP=10.77.0.254
LINK=drover0
POD_NET=10.244.0.0/24
SERVICE_NET=10.96.0.0/16

# shellcheck source=e2e/cluster/versions
. "$REPO/e2e/cluster/versions"
BIN=$CACHE/bin/$(cat "$REPO"/e2e/cluster/{versions,go/kubernetes/go.sum,go/etcd/go.sum} | sha256sum | cut -c1-12)
mkdir -p "$CACHE" "$LOGS" "$RUN"

# own_target: cargo compiles into TARGET from here on. It goes by the age of sources alone, so that what another clone has left there
# would pass for this one's.
own_target() {
    export CARGO_TARGET_DIR=$TARGET
    [ "$(cat "$TARGET/clone" 2> /dev/null)" != "$REPO" ] || return 0
    mkdir -p "$TARGET"
    find "$REPO" \( -name .git -o -name target \) -prune -o -type f -exec touch -c {} +
    printf '%s\n' "$REPO" > "$TARGET/clone"
}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# seconds_since START: START as of $EPOCHREALTIME.
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# step TITLE COMMAND…: runs it, its output in a log, with a sign of life every 15 s and the duration at the end.
step() {
    local title=$1 log start=$EPOCHREALTIME pulse status
    shift
    log=$LOGS/$(tr -cs 'a-zA-Z0-9' '-' <<< "$title" | sed 's/-*$//').log
    printf '  %-52s ' "$title"
    ( while sleep 15 > /dev/null 2>&1 && kill -0 $$ 2> /dev/null; do printf '\n    … %4.0f s  %s\n  %-52s ' "$(seconds_since "$start")" "$(tail -n 1 "$log" 2> /dev/null | tr -d '\r' | cut -c1-90)" "$title"; done ) 9>&- &
    pulse=$!
    # A shell of its own, where the first failure ends the step.
    set +e
    (set -e; "$@") > "$log" 2>&1
    status=$?
    set -e
    kill "$pulse" 2> /dev/null || true
    wait "$pulse" 2> /dev/null || true
    if [ "$status" -ne 0 ]; then
        printf 'failed after %s s\n' "$(seconds_since "$start")"
        tail -n 25 "$log" | sed 's/^/    | /' >&2
        die "$title: see $log"
    fi
    printf '%s s\n' "$(seconds_since "$start")"
}

# until_true SECONDS WHAT LOG COMMAND…: waits for a condition, or fails naming the log.
# A condition that has become hopeless ends the waiting.
until_true() {
    local limit=$1 what=$2 log=$3 end status message
    shift 3
    end=$((SECONDS + limit))
    while :; do
        status=0
        message=$("$@" 2>&1 > /dev/null) || status=$?
        [ "$status" -ne 0 ] || return 0
        [ "$status" -ne 70 ] || die "$what: $message"
        [ "$SECONDS" -lt "$end" ] || die "$what: not within $limit s, see $log"
        kill -0 $$ 2> /dev/null || exit 1 # whoever waited was killed
        sleep 0.1
    done
}

hopeless() { printf '%s\n' "$*" >&2; exit 70; }

port_open() { (exec 3<> "/dev/tcp/$1/$2") 2> /dev/null; }

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root: the node is made of kernel namespaces. Run it with sudo -E, or name a cluster of yours in DROVER_CONTEXT"
}

# locked NAME: one at a time; the lock goes with this process.
locked() {
    exec 9> "$RUN/$1.lock"
    flock -n 9 || { say "  waiting for another run of this ($1)"; flock 9; }
}

# need_packages COMMAND=PACKAGE…: installs what is missing, and keeps Debian from starting services with it.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        [ -e "${pair%%=*}" ] || command -v "${pair%%=*}" > /dev/null || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get > /dev/null || die "missing: ${missing[*]} (Debian's package names); install them and run this again"
    [ "$(id -u)" = 0 ] || die "missing packages: sudo apt-get install ${missing[*]}"
    step "install ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
    local policy=/usr/sbin/policy-rc.d made='' status=0
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"; made=1; }
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } || status=$?
    [ -z "$made" ] || rm -f "$policy"
    return "$status"
}

# process_is PID TEXT: that process lives, and TEXT is in its command line (a number can be used again).
process_is() {
    [ -n "$1" ] && [ -r "/proc/$1/cmdline" ] && tr '\0' ' ' < "/proc/$1/cmdline" 2> /dev/null | grep -qF -- "$2"
}

# child_of PID: its first child.
child_of() { cut -d' ' -f1 "/proc/$1/task/$1/children" 2> /dev/null || true; }

# node_init: the host's number of the node's PID 1; empty if there is no node.
node_init() {
    local outer
    outer=$(cat "$NODE/unshare.pid" 2> /dev/null || true)
    if process_is "$outer" "$NODE"; then child_of "$outer"; fi
}

kubectl() { "$BIN/kubectl" "$@"; }

# the_cluster: which cluster is used. A context that is named, else kind where Docker runs, else a node of our own.
the_cluster() {
    if [ -n "${DROVER_CONTEXT:-}" ]; then echo context
    elif command -v kind > /dev/null && docker info > /dev/null 2>&1; then echo kind
    else echo node
    fi
}
