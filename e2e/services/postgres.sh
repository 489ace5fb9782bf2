#!/usr/bin/env bash
# PostgreSQL of a set, of three names: `postgres`, which all tests share, and the pair of `primary` and `standby`, which a test may end;
# and a pooler before the first. Sourced by ctl.sh, never run.

pg_bin() { find /usr/lib/postgresql -maxdepth 2 -name bin 2> /dev/null | sort -V | tail -n 1; }

# port_of NAME: those beside the set's own.
port_of() {
    case $1 in
        postgres) echo "$POSTGRES" ;;
        primary) echo $((POSTGRES + 1)) ;;
        standby) echo $((POSTGRES + 2)) ;;
        pgbouncer) echo $((POSTGRES + 3)) ;;
    esac
}

# as_postgres NAME LOG COMMAND…: in the directory of that name, where it sees its own.
as_postgres() {
    local data=$DIR/$1 log=$2
    shift 2
    unshare --mount bash "$REPO/e2e/services/serve.sh" initdb "$data" "$@" > "$log" 2>&1 || die "$1 failed, see $log"
}

postgres_prepare() {
    local name=$1 data=$DIR/$1
    mkdir -p "$data"
    chown postgres:postgres "$data"
    if [ ! -e "$data/data/PG_VERSION" ]; then
        rm -rf "$data/data"
        printf '%s\n' "$PASSWORD" > "$data/password"
        chown postgres:postgres "$data/password"
        as_postgres "$name" "$DIR/$name-initdb.log" "$PG_BIN/initdb" -D /var/lib/postgresql/data \
            -U postgres -E UTF8 --locale C.UTF-8 --auth-local trust --auth-host scram-sha-256 --pwfile /var/lib/postgresql/password
    fi
    postgres_configure "$name"
}

# postgres_configure NAME: in whatever directory is there.
postgres_configure() {
    local data=$DIR/$1 host=host
    ! tls_only || host=hostssl
    printf 'local all all trust\n%s all all 0.0.0.0/0 scram-sha-256\n%s replication postgres 0.0.0.0/0 scram-sha-256\n' "$host" "$host" > "$data/data/pg_hba.conf"
    cat > "$data/data/conf.new" <<C
listen_addresses = '$NODE_IP'
port = $(port_of "$1")
unix_socket_directories = '/var/lib/postgresql'
max_connections = 200
shared_buffers = 128MB
logging_collector = off
timezone = 'UTC'
C
    if tls_only; then
        postgres_cert "$1" server
        printf "ssl = on\nssl_cert_file = '/var/lib/postgresql/shown.crt'\nssl_key_file = '/var/lib/postgresql/shown.key'\n" >> "$data/data/conf.new"
    fi
    mv "$data/data/conf.new" "$data/data/postgresql.conf"
    chown postgres:postgres "$data/data/postgresql.conf" "$data/data/pg_hba.conf"
}

# postgres_launch NAME
postgres_launch() {
    launch "$1" postgres "$PG_BIN/postgres" -D /var/lib/postgresql/data
    until_true 60 "PostgreSQL ($SET, $1)" "$DIR/$1.log" postgres_ready "$1"
}

postgres_start() {
    gone_or_stop postgres || return 0
    postgres_launch postgres
}

postgres_ready() {
    running "$1" || hopeless "it ended, see $DIR/$1.log"
    "$PG_BIN/pg_isready" -q -h "$NODE_IP" -p "$(port_of "$1")"
}

# psql_admin NAME ARGUMENT…
psql_admin() { PGPASSWORD=$PASSWORD "$PG_BIN/psql" -qX -v ON_ERROR_STOP=1 -h "$NODE_IP" -p "$(port_of "$1")" -U postgres "${@:2}"; }

postgres_roles() {
    local role
    for role in drover_owner drover_worker; do
        [ -n "$(psql_admin "$1" -Atc "select 1 from pg_roles where rolname = '$role'")" ] || psql_admin "$1" -c "create role $role login password '$PASSWORD'"
    done
    [ -n "$(psql_admin "$1" -Atc "select 1 from pg_database where datname = 'drover'")" ] || psql_admin "$1" -c 'create database drover owner drover_owner'
}

# postgres_cert NAME CERTIFICATE
postgres_cert() {
    local data=$DIR/$1
    case $2 in server | expired | wrongname | otherserver) ;; *) usage ;; esac
    tls_only || usage
    install -o postgres -g postgres -m 600 "$DIR/pki/$2.key" "$data/shown.key"
    install -o postgres -g postgres -m 644 "$DIR/pki/$2.crt" "$data/shown.crt"
    ! running "$1" || kill -HUP "$(inner_of "$1")"
}

# --- A pair: what the primary has acknowledged is on the standby's disk

# A pair that has been through something is not begun with again.
primary_start() {
    gone_or_stop primary || return 0
    end standby KILL 1
    rm -rf "$DIR/primary" "$DIR/standby"
    postgres_prepare primary
    postgres_launch primary
    postgres_roles primary
}

standby_start() {
    gone_or_stop standby || return 0
    running primary || die "a standby needs its primary: $0 $SET primary start"
    rm -rf "$DIR/standby"
    install -d -o postgres -g postgres "$DIR/standby"
    as_postgres standby "$DIR/standby-basebackup.log" PGPASSWORD="$PASSWORD" "$PG_BIN/pg_basebackup" -D /var/lib/postgresql/data \
        -d "host=$NODE_IP port=$(port_of primary) user=postgres sslmode=require application_name=standby" --checkpoint fast --write-recovery-conf
    postgres_configure standby
    postgres_launch standby
    psql_admin primary -c "alter system set synchronous_standby_names = 'standby'" -c 'select pg_reload_conf()' > /dev/null
    until_true 30 "the standby follows ($SET)" "$DIR/standby.log" standby_follows
}

standby_follows() { [ "$(psql_admin primary -Atc 'select sync_state from pg_stat_replication')" = sync ]; }

standby_promote() { [ "$(psql_admin standby -Atc 'select pg_promote()')" = t ] || die "the standby was not promoted, see $DIR/standby.log"; }

# --- A pooler that gives a connection for as long as a transaction

pgbouncer_start() {
    gone_or_stop pgbouncer || return 0
    need_packages /usr/sbin/pgbouncer=pgbouncer
    pgbouncer_prepare
    launch pgbouncer postgres /usr/sbin/pgbouncer /var/lib/postgresql/pgbouncer.ini
    until_true 10 "PgBouncer ($SET)" "$DIR/pgbouncer.log" pgbouncer_ready
}

pgbouncer_ready() {
    running pgbouncer || hopeless "it ended, see $DIR/pgbouncer.log"
    PGPASSWORD=$PASSWORD "$PG_BIN/psql" -qXAtc 'select 1' "host=$NODE_IP port=$(port_of pgbouncer) user=drover_worker dbname=drover sslmode=require"
}

# It knows one role, and asks the server for what the others log in with.
pgbouncer_prepare() {
    local data=$DIR/pgbouncer
    mkdir -p "$data"
    cp "$DIR"/pki/{ca.crt,server.crt,server.key} "$data/"
    printf '"postgres" "%s"\n' "$PASSWORD" > "$data/users"
    cat > "$data/pgbouncer.ini" <<C
[databases]
drover = host=$NODE_IP port=$POSTGRES
[pgbouncer]
listen_addr = $NODE_IP
listen_port = $(port_of pgbouncer)
unix_socket_dir =
pool_mode = transaction
max_client_conn = 1000
auth_type = scram-sha-256
auth_file = /var/lib/postgresql/users
auth_user = postgres
auth_query = select usename, passwd from pg_shadow where usename = \$1
client_tls_sslmode = require
client_tls_cert_file = /var/lib/postgresql/server.crt
client_tls_key_file = /var/lib/postgresql/server.key
server_tls_sslmode = verify-full
server_tls_ca_file = /var/lib/postgresql/ca.crt
C
    chmod 600 "$data/users"
    chown -R postgres:postgres "$data"
}
