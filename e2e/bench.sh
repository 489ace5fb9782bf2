#!/usr/bin/env bash
# Runs the benchmarks, or the one that is named, against the services of the tests.
#   KEEP=1  leave up what this run started
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"
export PATH=$BIN:$PATH
own_target
started=''
finish() {
    local status=$?
    [ -n "${KEEP:-}" ] || case $started in
        node) "$REPO/e2e/cluster/down.sh" ;;
        services) "$REPO/e2e/services/ctl.sh" test down ;;
    esac
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
[ -n "$(node_init)" ] || started=node
"$REPO/e2e/cluster/up.sh"
if [ -z "$started" ] && [ ! -e "$RUN/test/env" ]; then started=services; fi
"$REPO/e2e/services/ctl.sh" test up
"$REPO/e2e/images/build.sh"
# shellcheck source=/dev/null
. "$RUN/test/env"
# shellcheck source=/dev/null
. "$RUN/images.env"
start=$EPOCHREALTIME
# Each ends with a look for secrets that were told, the plugin's words among them.
cargo build -q --workspace --bin kubectl-drover
# What measures is not what is measured: that is built for release.
cargo run -q -p drover-e2e --bin drover-bench -- "$@"
say "bench: $(seconds_since "$start") s"
