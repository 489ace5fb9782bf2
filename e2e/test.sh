#!/usr/bin/env bash
# Runs the suites named, in this order: lint pure hub hub4 pooled chart cluster. Only where they are named: hub4, the hub suite on RabbitMQ 4, and
# pooled, what writes to the store once more, through a pooler. The last line is the count over all of them.
#   FULL=1  the slow tests too        KEEP=1  leave up what this run started
#   DROVER_E2E_THREADS=4  tests on the cluster at a time      DROVER_E2E_KEEP=1  a failed one leaves its namespace
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"
export PATH=$BIN:$PATH CARGO_TERM_COLOR=never
own_target
results=$(mktemp)
failed='' started=''
begin=$EPOCHREALTIME
slow=()
[ -z "${FULL:-}" ] || slow=(--include-ignored)

finish() {
    local status=$?
    trap - EXIT INT TERM
    if [ -z "${KEEP:-}" ]; then
        [ -z "${newer:-}" ] || "$REPO/e2e/services/ctl.sh" test4 down || status=1
        [ -z "${pooler:-}" ] || "$REPO/e2e/services/ctl.sh" test pgbouncer stop || status=1
        # A demo that was started meanwhile keeps the node.
        [ "$started" != node ] || [ ! -e "$RUN/demo/env" ] || started=services
        case $started in
            node) "$REPO/e2e/cluster/down.sh" || status=1 ;;
            services) "$REPO/e2e/services/ctl.sh" test down || status=1 ;;
        esac
    fi
    [ -z "$failed" ] || say "failed: $failed"
    say "all of it took $(seconds_since "$begin") s"
    awk -v failed="$failed" '
        /^test result:/ { for (i = 1; i <= NF; i++) { if ($i == "passed;") passed += $(i - 1); if ($i == "failed;") bad += $(i - 1) } }
        /^broken$/ { broken++ }
        END { print passed + 0 " passed, " bad + broken " failed" }' "$results"
    grep -q '^broken$' "$results" && status=1
    [ -z "$failed" ] || status=1
    rm -f "$results"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# suite NAME COMMAND…: a suite that fails without a failed test (it did not compile, say) counts as one.
suite() {
    local name=$1 log start=$EPOCHREALTIME status
    shift
    log=$LOGS/test-$name.log
    say "== $name"
    set +e
    (set -e; "$@") 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    set -e
    grep '^test result:' "$log" >> "$results" || true
    if [ "$status" -ne 0 ]; then
        failed+="${failed:+, }$name (see $log)"
        grep -Eq '^test result:.* [1-9][0-9]* failed' "$log" || echo broken >> "$results"
    fi
    say "== $name: $([ "$status" -eq 0 ] && echo passed || echo FAILED), $(seconds_since "$start") s"
}

# targets: all integration tests, each as its name and its file or folder.
targets() {
    local path
    for path in {crds,operator,worker,e2e}/tests/*; do
        if [ -e "$path/main.rs" ]; then echo "${path##*/} $path"
        elif [ "${path%.rs}" != "$path" ]; then echo "$(basename -s .rs "$path") $path"
        fi
    done
}

# selected KIND: --test arguments for the targets of a kind; those that need the hub or the store are known by what they read.
selected() {
    local name path kind
    targets | while read -r name path; do
        if [ "$name" = cluster ]; then kind=cluster
        elif grep -rqE 'DROVER_TEST_(HUB|STORE)_|services/reach' "$path"; then kind=services
        else kind=pure
        fi
        [ "$kind" != "$1" ] || echo "$name"
    done | sort -u | sed 's/^/--test /' | tr '\n' ' '
}

lint() {
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
}

pure() {
    # shellcheck disable=SC2046 # words on purpose
    cargo test --workspace --no-fail-fast --lib --bins $(selected pure) -- "${slow[@]}"
}

hub() {
    local tests status=0
    tests=$(selected services)
    [ -n "$tests" ] || { say "no tests of the hub and the store"; return; }
    # shellcheck disable=SC2086 # words on purpose
    cargo test --workspace --no-fail-fast $tests || status=1
    # The slow ones one by one: some restart what all share. One is the process of a handler, one wants a hub without a plugin.
    # shellcheck disable=SC2086 # words on purpose
    [ -z "${FULL:-}" ] || cargo test --workspace --no-fail-fast $tests -- --ignored --test-threads=1 \
        --skip is_a_handler --skip a_hub_without_the_plugin || status=1
    return "$status"
}

# What writes to the store, by way of a pooler that gives a connection for a transaction. What tests do beside the workers goes that way too,
# but for the superuser's part. The slow ones are not for here: they are about servers and hubs that are restarted. Left out by name:
#   a_database_that_is_not_there_is_told        PgBouncer tells nobody which databases there are: such a login fails
#   lost_connections_and_a_connection_limit     it waits itself where the server's limit for a role refuses it, and the worker sees no answer
pooled() {
    local status=0 address
    address=$("$REPO/e2e/services/ctl.sh" test pgbouncer address)
    DROVER_TEST_STORE_URI=${DROVER_TEST_STORE_URI/@*\//@$address/}
    DROVER_TEST_STORE_WORKER_URI=${DROVER_TEST_STORE_WORKER_URI/@*\//@$address/}
    cargo test --workspace --no-fail-fast --test store --test stream -- --skip a_database_that_is_not_there_is_told || status=1
    cargo test --workspace --no-fail-fast --test broker -- append:: bad_bodies:: drain:: faults:: poison_bodies:: preview:: process:: slow:: upsert:: \
        --skip lost_connections_and_a_connection_limit || status=1
    return "$status"
}

cluster() {
    local tests
    tests=$(selected cluster)
    [ -n "$tests" ] || { say "no tests on the cluster"; return; }
    need_packages prometheus=prometheus
    # The plugin is run as a person runs it.
    cargo build --workspace --bin kubectl-drover
    # The whole workspace, so that what the other suites compiled is used. Most of a test's time is waiting for pods: more of
    # them run side by side than there are cores, and no more than a node of 60 pods has room for.
    # An error says what was being done; where in this code is no help.
    # shellcheck disable=SC2086 # words on purpose
    RUST_LIB_BACKTRACE=0 cargo test --workspace --no-fail-fast $tests -- --test-threads="${DROVER_E2E_THREADS:-4}" "${slow[@]}"
}

# Hub and store of the tests, in the node's network; what is up already is used, and stays.
surroundings() {
    [ -z "${surrounded:-}" ] || return 0
    surrounded=1
    if [ "$(the_cluster)" = node ]; then
        [ -n "$(node_init)" ] || started=node
        "$REPO/e2e/cluster/up.sh" 9>&-
        if [ -z "$started" ] && [ ! -e "$RUN/test/env" ]; then started=services; fi
        "$REPO/e2e/services/ctl.sh" test up 9>&-
        # shellcheck source=/dev/null
        . "$RUN/test/env"
    else
        local name
        "$REPO/e2e/cluster/up.sh" 9>&-
        for name in DROVER_TEST_HUB_URI DROVER_TEST_HUB_MANAGEMENT_URI DROVER_TEST_STORE_URI DROVER_TEST_STORE_WORKER_URI \
            DROVER_TEST_STORE_ADMIN_URI DROVER_TEST_CA; do
            [ -n "${!name:-}" ] || die "$name is missing: with a cluster of your own, name a hub and a store for the tests"
        done
        export KUBECONFIG=$NODE/kubeconfig
    fi
}

[ $# -gt 0 ] || set -- lint pure hub chart cluster
command -v cargo > /dev/null || die "Rust is missing: install it with  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
need_packages gcc=gcc
for name in "$@"; do
    case $name in
        lint) suite lint lint ;;
        pure)
            "$REPO/e2e/cluster/build.sh" clients
            suite pure pure
            ;;
        chart) suite chart "$REPO/e2e/chart/check.sh" ;;
        hub)
            surroundings
            suite hub hub
            ;;
        hub4)
            surroundings
            newer=$([ -e "$RUN/test4/env" ] || echo started)
            "$REPO/e2e/services/ctl.sh" test4 up 9>&-
            # shellcheck source=/dev/null
            . "$RUN/test4/env"
            suite hub4 hub
            # shellcheck source=/dev/null
            . "$RUN/test/env"
            ;;
        pooled)
            surroundings
            pooler=$([ -e "$RUN/test/pgbouncer.pid" ] || echo started)
            "$REPO/e2e/services/ctl.sh" test pgbouncer start 9>&-
            suite pooled pooled
            ;;
        cluster)
            surroundings
            "$REPO/e2e/images/build.sh" tests
            # shellcheck source=/dev/null
            . "$RUN/images.env"
            suite cluster cluster
            ;;
        *) die "unknown suite $name: lint, pure, hub, hub4, pooled, chart, cluster" ;;
    esac
done
