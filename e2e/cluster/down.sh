#!/usr/bin/env bash
# Takes the node away: its processes, services that joined its network, link, cgroups and files. Harmless when there is none.
#   --quiet      say nothing          --unlocked  the caller holds the lock
#   --keep-logs  leave the logs       --if-dead   fail, and touch nothing, while the node lives
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/lib.sh"
quiet='' unlocked='' keep='' dead=''
for flag in "$@"; do
    case $flag in
        --quiet) quiet=1 ;; --unlocked) unlocked=1 ;; --keep-logs) keep=1 ;; --if-dead) dead=1 ;;
        *) die "unknown flag $flag" ;;
    esac
done
case $(the_cluster) in
    context) [ -n "$quiet" ] || say "cluster: context $DROVER_CONTEXT is yours, left as it is"; exit 0 ;;
    kind) kind delete cluster --name drover; exit 0 ;;
esac
need_root
[ -z "$dead" ] || [ -z "$(node_init)" ] || exit 1
[ -n "$unlocked" ] || locked node

if [ -e "$OWNER" ] && [ "$(cat "$OWNER")" != "$NODE" ]; then
    rm -rf "$NODE"
    [ -n "$quiet" ] || say "cluster: none of ours; the node that is up has its state in $(cat "$OWNER")"
    exit 0
fi

# The inode of a namespace says something only since the last boot.
same_boot() { [ "$(cat "$NODE/boot_id" 2> /dev/null)" = "$(cat /proc/sys/kernel/random/boot_id)" ]; }

# Everything that is in the node's network, whoever started it.
in_network() {
    local netns process
    netns=$(cat "$NODE/netns" 2> /dev/null) || return 0
    [ "$netns" != "$(readlink /proc/self/ns/net)" ] || return 0
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/net" 2> /dev/null)" != "$netns" ] || echo "${process#/proc/}"
    done
}

for set in demo test test4; do
    [ ! -d "$RUN/$set" ] || DROVER_LOCK_HELD=1 "$REPO/e2e/services/ctl.sh" "$set" down 9>&- || true
done
outer=$(cat "$NODE/unshare.pid" 2> /dev/null || true)
if same_boot; then
    if process_is "$outer" "$NODE"; then
        kill -9 "$outer" 2> /dev/null || true
    fi
    end=$((SECONDS + 30))
    while left=$(in_network) && [ -n "$left" ]; do
        # shellcheck disable=SC2086 # one word per process
        kill -9 $left 2> /dev/null || true
        [ "$SECONDS" -lt "$end" ] || die "these processes do not end: $left"
        sleep 0.1
    done
fi
! ip link show "$LINK" > /dev/null 2>&1 || ip link del "$LINK"

remove_cgroups() {
    local group left=0
    while IFS= read -r group; do rmdir "$group" 2> /dev/null || left=1; done < <(find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name drover -exec find {} -depth -type d \; 2> /dev/null)
    return "$left"
}
until_true 20 "the cgroups named drover are still in use" /sys/fs/cgroup remove_cgroups

if [ -n "$keep" ] && [ -d "$NODE/log" ]; then
    find "$NODE" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
else
    rm -rf "$NODE"
fi
rm -f "$OWNER"
[ -n "$quiet" ] || say "cluster: down, nothing left"
