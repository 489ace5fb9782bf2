#!/usr/bin/env bash
# RabbitMQ and PostgreSQL as stand-ins for managed services: outside the cluster, in the node's network (10.77.0.1).
# Sets that know nothing of each other: `demo`, `test`, whose hub and database speak TLS only, and `test4`, the same with RabbitMQ 4.
#   ctl.sh SET up | down | status
#   ctl.sh SET rabbitmq|postgres start | stop | restart | kill | suspend | resume | status
#   ctl.sh test|test4 postgres cert server | expired | wrongname | otherserver     what it shows from now on
# Once up, $DROVER_RUN/SET/env has the addresses and passwords, to be sourced.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"

usage() { sed -n '4,7s/^# *//p' "$0" >&2; exit 2; }
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
PG_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2> /dev/null | sort -V | tail -n 1)

need_services() {
    need_root
    need_packages /usr/lib/rabbitmq/bin/rabbitmq-server=rabbitmq-server /usr/lib/postgresql=postgresql \
        socat=socat openssl=openssl curl=curl setpriv=util-linux
    [ "$SET" != test4 ] || debian_13
    PG_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)
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
        signal_all "$1" CONT
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

# --- PostgreSQL

postgres_prepare() {
    local data=$DIR/postgres host=host
    ! tls_only || host=hostssl
    mkdir -p "$data"
    chown postgres:postgres "$data"
    if [ ! -e "$data/data/PG_VERSION" ]; then
        rm -rf "$data/data"
        printf '%s\n' "$PASSWORD" > "$data/password"
        chown postgres:postgres "$data/password"
        unshare --mount bash "$REPO/e2e/services/serve.sh" initdb "$data" "$PG_BIN/initdb" -D /var/lib/postgresql/data \
            -U postgres -E UTF8 --locale C.UTF-8 --auth-local trust --auth-host scram-sha-256 --pwfile /var/lib/postgresql/password \
            > "$DIR/initdb.log" 2>&1 || die "PostgreSQL's directory could not be made, see $DIR/initdb.log"
    fi
    printf 'local all all trust\n%s all all 0.0.0.0/0 scram-sha-256\n' "$host" > "$data/data/pg_hba.conf"
    cat > "$data/data/conf.new" <<C
listen_addresses = '$NODE_IP'
port = $POSTGRES
unix_socket_directories = '/var/lib/postgresql'
max_connections = 200
shared_buffers = 128MB
logging_collector = off
timezone = 'UTC'
C
    if tls_only; then
        postgres_cert server
        printf "ssl = on\nssl_cert_file = '/var/lib/postgresql/shown.crt'\nssl_key_file = '/var/lib/postgresql/shown.key'\n" >> "$data/data/conf.new"
    fi
    mv "$data/data/conf.new" "$data/data/postgresql.conf"
    chown postgres:postgres "$data/data/postgresql.conf" "$data/data/pg_hba.conf"
}

postgres_start() {
    gone_or_stop postgres || return 0
    launch postgres postgres "$PG_BIN/postgres" -D /var/lib/postgresql/data
    until_true 60 "PostgreSQL ($SET)" "$DIR/postgres.log" postgres_ready
}

postgres_ready() {
    running postgres || hopeless "it ended, see $DIR/postgres.log"
    "$PG_BIN/pg_isready" -q -h $NODE_IP -p "$POSTGRES"
}

psql_admin() { PGPASSWORD=$PASSWORD "$PG_BIN/psql" -qX -v ON_ERROR_STOP=1 -h $NODE_IP -p "$POSTGRES" -U postgres "$@"; }

postgres_roles() {
    local role
    for role in drover_owner drover_worker; do
        [ -n "$(psql_admin -Atc "select 1 from pg_roles where rolname = '$role'")" ] || psql_admin -c "create role $role login password '$PASSWORD'"
    done
    [ -n "$(psql_admin -Atc "select 1 from pg_database where datname = 'drover'")" ] || psql_admin -c 'create database drover owner drover_owner'
}

postgres_cert() {
    local data=$DIR/postgres
    case $1 in server | expired | wrongname | otherserver) ;; *) usage ;; esac
    tls_only || usage
    install -o postgres -g postgres -m 600 "$DIR/pki/$1.key" "$data/shown.key"
    install -o postgres -g postgres -m 644 "$DIR/pki/$1.crt" "$data/shown.crt"
    ! running postgres || kill -HUP "$(inner_of postgres)"
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
        step "$SET: PostgreSQL's directory" postgres_prepare
        step "$SET: PostgreSQL" postgres_start
    fi
    postgres_roles
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
    for name in tls-expired tls-wrongname postgres rabbitmq; do
        case $name in postgres) end "$name" INT 15 ;; *) end "$name" TERM 20 ;; esac
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

case $1 in
    up) set_up; exit ;;
    down) set_down; exit ;;
    status) status rabbitmq postgres; exit ;;
    rabbitmq | postgres) ;;
    *) usage ;;
esac
service=$1
[ -s "$DIR/password" ] || die "the services of $SET are not up: $0 $SET up"
password
stopping=TERM
[ "$service" = rabbitmq ] || stopping=INT # fast: connections are cut, what was committed stays
case ${2:-} in
    start) "${service}_start" ;;
    stop) end "$service" "$stopping" 30 ;;
    restart) end "$service" "$stopping" 30; "${service}_start" ;;
    kill) end "$service" KILL 1 ;;
    suspend) signal_all "$service" STOP ;;
    resume) signal_all "$service" CONT ;;
    status) status "$service" ;;
    cert) [ "$service" = postgres ] || usage; postgres_cert "${3:-}" ;;
    *) usage ;;
esac
