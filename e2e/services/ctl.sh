#!/usr/bin/env bash
# RabbitMQ and PostgreSQL as stand-ins for managed services: outside the cluster, in the node's network (10.77.0.1).
# Sets that know nothing of each other: `demo`, `test`, whose hub and database speak TLS only, and `test4`, the same with RabbitMQ 4.
#   ctl.sh SET up | down | status
#   ctl.sh SET rabbitmq|postgres start | stop | restart | kill | suspend | resume | status
#   ctl.sh SET rabbitmq eval EXPRESSION     Erlang, in the broker
#   ctl.sh test|test4 postgres cert server | expired | wrongname | otherserver     what it shows from now on
#   ctl.sh test|test4 pgbouncer start | …   before postgres, a connection a transaction; as the pair, up only where it is started
#   ctl.sh test|test4 primary start | …     a PostgreSQL that a test may end, and a standby of it to which each commit has come:
#   ctl.sh test|test4 standby start | … | promote
#   ctl.sh SET postgres|pgbouncer|primary|standby address
# Once up, $DROVER_RUN/SET/env has the addresses and passwords, to be sourced.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
# shellcheck source=e2e/services/postgres.sh
. "$REPO/e2e/services/postgres.sh"

usage() { sed -n '4,12s/^# *//p' "$0" >&2; exit 2; }
[ $# -ge 2 ] || usage
SET=$1
shift
case $SET in
    demo) AMQP=5672 MANAGEMENT=15672 MQTT=1883 STREAM=5552 METRICS=15692 DISTRIBUTION=25672 POSTGRES=5432 SCHEME='' ;;
    test) AMQP=5771 MANAGEMENT=15771 MQTT=1971 STREAM=5651 METRICS=15791 DISTRIBUTION=25771 POSTGRES=5532 SCHEME=s EXPIRED=5772 WRONGNAME=5773 ;;
    test4) AMQP=5871 MANAGEMENT=15871 MQTT=2071 STREAM=5751 METRICS=15891 DISTRIBUTION=25871 POSTGRES=5632 SCHEME=s EXPIRED=5872 WRONGNAME=5873 ;;
    *) usage ;;
esac
DIR=$RUN/$SET
# Debian 12 has RabbitMQ 3.10; that of Debian 13 is run from a directory of its own.
DEBIAN_13=$CACHE/debian-13-rabbitmq
PG_BIN=$(pg_bin)

need_services() {
    need_root
    need_packages /usr/lib/rabbitmq/bin/rabbitmq-server=rabbitmq-server /usr/lib/postgresql=postgresql \
        socat=socat openssl=openssl curl=curl setpriv=util-linux
    [ "$SET" != test4 ] || debian_13
    PG_BIN=$(pg_bin)
}

debian_13() {
    [ ! -e "$DEBIAN_13" ] || return 0
    need_packages debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
    rm -rf "$DEBIAN_13.new"
    step "RabbitMQ 4, with Debian 13 around it" debootstrap --variant=minbase --include=rabbitmq-server trixie "$DEBIAN_13.new"
    rm -rf "$DEBIAN_13.new"/var/cache/apt/archives/*.deb
    mv "$DEBIAN_13.new" "$DEBIAN_13"
}

# at SERVICE: where its process number and log are. The sets share one epmd, as the services of a machine would.
at() { if [ "$1" = epmd ]; then echo "$RUN/epmd"; else echo "$DIR/$1"; fi; }

outer_of() { cat "$(at "$1").pid" 2> /dev/null || true; }

running() { [ -n "$(inner_of "$1")" ]; }
gone() { ! process_is "$(outer_of "$1")" "$(at "$1")"; }

# inner_of SERVICE: the host's number of its PID 1; empty when it does not run.
inner_of() {
    local outer
    outer=$(outer_of "$1")
    if process_is "$outer" "$(at "$1")"; then child_of "$outer"; fi
}

# launch NAME SERVICE ARGUMENT…: in the node's network; the end of its PID 1 ends all of it.
launch() {
    local name=$1 service=$2 place init
    shift 2
    place=$(at "$name")
    init=$(node_init)
    [ -n "$init" ] || die "the services live in the node's network, and no node is up: make cluster-up"
    # shellcheck disable=SC2016 # expanded by that shell
    setsid bash -c 'echo $$ > "$1.pid"; exec nsenter --net="/proc/$2/ns/net" unshare --mount --pid --ipc --fork --kill-child --mount-proc bash "$3/serve.sh" "$4" "$1" "${@:5}"' \
        _ "$place" "$init" "$REPO/e2e/services" "$service" "$@" >> "$place.log" 2>&1 < /dev/null 9>&- &
    disown
    until_true 5 "$name" "$place.log" running "$name"
}

# end SERVICE SIGNAL SECONDS: asks, and after that long does not ask.
end() {
    local inner outer
    inner=$(inner_of "$1"); outer=$(outer_of "$1")
    if [ -n "$inner" ]; then
        # What is suspended hears nothing but KILL.
        [ "$2" = KILL ] || signal_all "$1" CONT
        kill "-$2" "$inner" 2> /dev/null || true
        local until=$((SECONDS + $3))
        until gone "$1" || [ "$SECONDS" -ge "$until" ]; do sleep 0.05; done
    fi
    if ! gone "$1"; then
        [ -z "$inner" ] || kill -9 "$inner" 2> /dev/null || true
        kill -9 "$outer" 2> /dev/null || true
        until_true 10 "$1 does not end" "$(at "$1").log" gone "$1"
    fi
    rm -f "$(at "$1").pid"
}

# signal_all SERVICE SIGNAL: to every process of its PID namespace.
signal_all() {
    local inner space process
    inner=$(inner_of "$1")
    [ -n "$inner" ] || die "$SET $1 does not run"
    space=$(readlink "/proc/$inner/ns/pid")
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/ns/pid" 2> /dev/null)" != "$space" ] || kill "-$2" "${process#/proc/}" 2> /dev/null || true
    done
}

# --- RabbitMQ

rabbitmq_prepare() {
    local data=$DIR/rabbitmq
    mkdir -p "$data"
    {
        if tls_only; then
            echo 'listeners.tcp = none'
            echo "listeners.ssl.1 = $NODE_IP:$AMQP"
            tls_lines ssl_options
            echo "management.ssl.ip = $NODE_IP"
            echo "management.ssl.port = $MANAGEMENT"
            tls_lines management.ssl
            # Tests read what the hub counts soon after it happens.
            echo 'collect_statistics_interval = 1000'
        else
            echo "listeners.tcp.1 = $NODE_IP:$AMQP"
            echo "management.tcp.ip = $NODE_IP"
            echo "management.tcp.port = $MANAGEMENT"
        fi
        cat <<C
mqtt.listeners.tcp.1 = $NODE_IP:$MQTT
mqtt.allow_anonymous = false
stream.listeners.tcp.1 = $NODE_IP:$STREAM
prometheus.tcp.ip = $NODE_IP
prometheus.tcp.port = $METRICS
default_user = drover
default_pass = $PASSWORD
default_user_tags.administrator = true
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 100MB
raft.wal_max_size_bytes = 67108864
log.console = true
log.console.level = info
log.file = false
C
    } > "$data/rabbitmq.conf"
    # A stream's segments are preallocated otherwise at 500 MB.
    echo '[{osiris,[{max_segment_size_bytes,52428800}]}].' > "$data/advanced.config"
    echo '[rabbitmq_management,rabbitmq_stream,rabbitmq_mqtt,rabbitmq_consistent_hash_exchange,rabbitmq_prometheus].' > "$data/enabled_plugins"
    : > "$data/env.conf"
    chown -R "$(rabbitmq_user)" "$data"
}

# Its numbers: names are others in the other Debian.
rabbitmq_user() {
    local passwd=/etc/passwd
    [ "$SET" != test4 ] || passwd=$DEBIAN_13/etc/passwd
    awk -F: '$1 == "rabbitmq" { print $3 ":" $4 }' "$passwd"
}

tls_only() { [ "$SET" != demo ]; }

tls_lines() {
    printf '%s.cacertfile = /var/lib/rabbitmq/pki/ca.crt\n%s.certfile = /var/lib/rabbitmq/pki/server.crt\n%s.keyfile = /var/lib/rabbitmq/pki/server.key\n' "$1" "$1" "$1"
    [ "$1" = management.ssl ] || printf '%s.verify = verify_none\n%s.fail_if_no_peer_cert = false\n' "$1" "$1"
}

rabbitmq_start() {
    gone_or_stop rabbitmq || return 0
    epmd_start
    local service=rabbitmq
    [ "$SET" != test4 ] || service=$DEBIAN_13
    launch rabbitmq "$service" RABBITMQ_NODENAME="$SET@localhost" RABBITMQ_DIST_PORT=$DISTRIBUTION \
        RABBITMQ_CONFIG_FILE=/var/lib/rabbitmq/rabbitmq.conf RABBITMQ_ADVANCED_CONFIG_FILE=/var/lib/rabbitmq/advanced.config \
        RABBITMQ_CONF_ENV_FILE=/var/lib/rabbitmq/env.conf RABBITMQ_ENABLED_PLUGINS_FILE=/var/lib/rabbitmq/enabled_plugins \
        RABBITMQ_MNESIA_BASE=/var/lib/rabbitmq/mnesia RABBITMQ_LOGS=- \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none'
    until_true 90 "RabbitMQ ($SET)" "$DIR/rabbitmq.log" rabbitmq_ready
}

# rabbitmq_eval EXPRESSION: in the broker itself, for faults that nothing else makes.
rabbitmq_eval() {
    nsenter --net="/proc/$(inner_of rabbitmq)/ns/net" /usr/lib/rabbitmq/bin/rabbitmqctl --quiet -n "$SET@localhost" \
        --erlang-cookie "$(cat "$DIR/rabbitmq/.erlang.cookie")" eval "$1"
}

rabbitmq_ready() {
    running rabbitmq || hopeless "it ended, see $DIR/rabbitmq.log"
    port_open $NODE_IP "$AMQP" && port_open $NODE_IP "$MQTT" \
        && curl -sf --max-time 5 --cacert "$DIR/pki/ca.crt" -u "drover:$PASSWORD" "http$SCHEME://$NODE_IP:$MANAGEMENT/api/whoami"
}

epmd_start() {
    port_open $NODE_IP 4369 && return 0
    launch epmd epmd
    until_true 10 epmd "$RUN/epmd.log" port_open $NODE_IP 4369
}

# --- TLS listeners that must be refused, before the hub

tls_start() {
    local name port
    for name in expired wrongname; do
        port=$EXPIRED
        [ "$name" = expired ] || port=$WRONGNAME
        gone_or_stop "tls-$name" || continue
        launch "tls-$name" tls socat "OPENSSL-LISTEN:$port,bind=$NODE_IP,reuseaddr,fork,verify=0,cert=/dev/fd/3,key=/dev/fd/4" \
            "OPENSSL:$NODE_IP:$AMQP,verify=0" 3< "$DIR/pki/$name.crt" 4< "$DIR/pki/$name.key"
        until_true 10 "the listener with the $name certificate" "$DIR/tls-$name.log" port_open $NODE_IP "$port"
    done
}

# gone_or_stop SERVICE: true when it must be started; one that lives is left alone.
gone_or_stop() { ! running "$1" && { end "$1" TERM 1; true; }; }

# --- The set

write_env() {
    local hub=amqp$SCHEME://drover:$PASSWORD@$NODE_IP:$AMQP/%2f mode=disable prefix=DROVER store
    [ "$SET" = demo ] || { mode=require; prefix=DROVER_TEST; }
    store="$NODE_IP:$POSTGRES/drover?sslmode=$mode"
    {
        echo "export ${prefix}_HUB_URI='$hub'"
        echo "export ${prefix}_HUB_MANAGEMENT_URI='http$SCHEME://drover:$PASSWORD@$NODE_IP:$MANAGEMENT'"
        echo "export ${prefix}_STORE_URI='postgres://drover_owner:$PASSWORD@$store'"
        echo "export ${prefix}_STORE_WORKER_URI='postgres://drover_worker:$PASSWORD@$store'"
        echo "export ${prefix}_STORE_ADMIN_URI='postgres://postgres:$PASSWORD@$store'"
        echo "export ${prefix}_MQTT_URI='mqtt://drover:$PASSWORD@$NODE_IP:$MQTT'"
        if tls_only; then
            echo "export DROVER_TEST_SET='$SET'"
            echo "export DROVER_TEST_CA='$DIR/pki/ca.crt'"
            echo "export DROVER_TEST_OTHER_CA='$DIR/pki/otherca.crt'"
            echo "export DROVER_TEST_PKI='$DIR/pki'"
            echo "export DROVER_TEST_HUB_EXPIRED_URI='${hub/:$AMQP/:$EXPIRED}'"
            echo "export DROVER_TEST_HUB_WRONGNAME_URI='${hub/:$AMQP/:$WRONGNAME}'"
            echo "export DROVER_TEST_CTL='$REPO/e2e/services/ctl.sh'"
        fi
        echo "export KUBECONFIG='$NODE/kubeconfig'"
        [ -z "${DROVER_RUN:-}" ] || echo "export DROVER_RUN='$DROVER_RUN'"
        [ -z "${DROVER_CACHE:-}" ] || echo "export DROVER_CACHE='$DROVER_CACHE'"
    } > "$DIR/env.new"
    mv "$DIR/env.new" "$DIR/env"
}

password() {
    [ -s "$DIR/password" ] || (umask 077; openssl rand -hex 16 > "$DIR/password.new" && mv "$DIR/password.new" "$DIR/password")
    PASSWORD=$(cat "$DIR/password")
}

certificates() {
    tls_only || return 0
    if [ ! -e "$DIR/pki/otherserver.crt" ]; then "$REPO/e2e/services/pki.sh" "$DIR/pki" > "$DIR/pki.log" 2>&1 || die "no certificates, see $DIR/pki.log"; fi
    mkdir -p "$DIR/rabbitmq/pki"
    cp "$DIR"/pki/{ca.crt,server.crt,server.key} "$DIR/rabbitmq/pki/"
}

set_up() {
    need_services
    mkdir -p "$DIR"
    locked "services-$SET"
    password
    certificates
    if ! running rabbitmq; then
        rabbitmq_prepare
        step "$SET: RabbitMQ" rabbitmq_start
    fi
    if ! running postgres; then
        step "$SET: PostgreSQL's directory" postgres_prepare postgres
        step "$SET: PostgreSQL" postgres_start
    fi
    postgres_roles postgres
    ! tls_only || tls_start
    write_env
    say "services ($SET): up, addresses in $DIR/env"
}

set_down() {
    locked "services-$SET"
    local name devices
    # The demo's devices publish to this hub and to no other.
    devices=$(cat "$DIR/devices.pid" 2> /dev/null || true)
    if process_is "$devices" drover-devices; then kill "$devices" 2> /dev/null || true; fi
    for name in tls-expired tls-wrongname pgbouncer standby primary postgres rabbitmq; do
        end "$name" "$(stopping "$name")" 20
    done
    if ! compgen -G "$RUN/*/rabbitmq.pid" > /dev/null; then
        end epmd KILL 1
        rm -f "$RUN/epmd.log"
    fi
    rm -rf "$DIR"
    say "services ($SET): down"
}

status() {
    local name
    for name in "$@"; do
        if running "$name"; then say "$SET $name: runs, process $(inner_of "$name"), log $DIR/$name.log"; else say "$SET $name: does not run"; fi
    done
}

# stopping SERVICE: the signal that asks it to end.
stopping() {
    case $1 in
        postgres | primary | standby) echo INT ;; # fast: connections are cut, what was committed stays
        *) echo TERM ;;
    esac
}

case $1 in
    up) set_up; exit ;;
    down) set_down; exit ;;
    status) status rabbitmq postgres; exit ;;
    rabbitmq | postgres) ;;
    pgbouncer | primary | standby) tls_only || usage ;;
    *) usage ;;
esac
service=$1
[ -s "$DIR/password" ] || die "the services of $SET are not up: $0 $SET up"
password
case ${2:-} in
    start) "${service}_start" ;;
    stop) end "$service" "$(stopping "$service")" 30 ;;
    restart) end "$service" "$(stopping "$service")" 30; "${service}_start" ;;
    kill) end "$service" KILL 1 ;;
    suspend) signal_all "$service" STOP ;;
    resume) signal_all "$service" CONT ;;
    status) status "$service" ;;
    address) [ "$service" != rabbitmq ] || usage; echo "$NODE_IP:$(port_of "$service")" ;;
    eval) [ "$service" = rabbitmq ] || usage; rabbitmq_eval "${3:-}" ;;
    cert) [ "$service" = postgres ] || usage; postgres_cert "$service" "${3:-}" ;;
    promote) [ "$service" = standby ] || usage; standby_promote ;;
    *) usage ;;
esac
