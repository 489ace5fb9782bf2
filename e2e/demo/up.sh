#!/usr/bin/env bash
# The demo: hub, store and cluster, Drover installed on it, a pipeline, a window query, and devices that publish while you look.
# Run again, it repairs what is missing and goes on.
#   DROVER_CONTEXT  a context of your kubeconfig; then also DROVER_REGISTRY, DROVER_HUB_URI, DROVER_STORE_URI
#                   (and, if devices are to publish, DROVER_MQTT_URI)
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
cd "$REPO"
start=$EPOCHREALTIME
kind=$(the_cluster)

if [ "$kind" = context ]; then
    for name in DROVER_REGISTRY DROVER_HUB_URI DROVER_STORE_URI; do
        [ -n "${!name:-}" ] || die "$name is missing: with DROVER_CONTEXT the demo needs DROVER_REGISTRY (filled by make push), DROVER_HUB_URI (amqps://…) and DROVER_STORE_URI (postgres://…)"
    done
fi
[ "$kind" != node ] || need_root
command -v cargo > /dev/null || die "Rust is missing: install it with  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
need_packages gcc=gcc curl=curl psql=postgresql-client

locked demo
own_target
e2e/cluster/up.sh 9>&-
export KUBECONFIG=$NODE/kubeconfig PATH=$BIN:$PATH
export HELM_CACHE_HOME=$CACHE/helm HELM_CONFIG_HOME=$CACHE/helm HELM_DATA_HOME=$CACHE/helm

# Not tried: no Docker where this was written.
services_in_docker() {
    local password=drover
    docker inspect drover-rabbitmq > /dev/null 2>&1 || docker run -d --name drover-rabbitmq --network kind \
        -e RABBITMQ_DEFAULT_USER=drover -e RABBITMQ_DEFAULT_PASS="$password" rabbitmq:4-management
    docker inspect drover-postgres > /dev/null 2>&1 || docker run -d --name drover-postgres --network kind \
        -e POSTGRES_USER=drover -e POSTGRES_PASSWORD="$password" postgres:17
    docker start drover-rabbitmq drover-postgres
    docker exec drover-rabbitmq rabbitmq-plugins enable rabbitmq_management rabbitmq_stream rabbitmq_mqtt rabbitmq_consistent_hash_exchange rabbitmq_prometheus
    local hub store
    hub=$(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' drover-rabbitmq)
    store=$(docker inspect -f '{{.NetworkSettings.Networks.kind.IPAddress}}' drover-postgres)
    mkdir -p "$RUN/demo"
    cat > "$RUN/demo/env" <<V
export DROVER_HUB_URI='amqp://drover:$password@$hub:5672/%2f'
export DROVER_MQTT_URI='mqtt://drover:$password@$hub:1883'
export DROVER_STORE_URI='postgres://drover:$password@$store:5432/drover'
export KUBECONFIG='$NODE/kubeconfig'
V
}

case $kind in
    node) e2e/services/ctl.sh demo up 9>&- ;;
    kind) step "demo: RabbitMQ and PostgreSQL in Docker" services_in_docker ;;
esac
# shellcheck source=/dev/null
[ "$kind" = context ] || . "$RUN/demo/env"
mkdir -p "$RUN/demo"

e2e/images/build.sh 9>&-
# shellcheck source=/dev/null
. "$RUN/images.env"

crds() { kubectl apply --server-side --force-conflicts -f crds/; }

install() {
    helm upgrade --install drover charts/drover --namespace drover-system --create-namespace --wait --timeout 3m \
        --set-string image.registry="$DROVER_IMAGE_REGISTRY" --set-string image.tag="$DROVER_IMAGE_TAG" --set image.pullPolicy=IfNotPresent
}

secrets() {
    kubectl create namespace iot --dry-run=client -o yaml | kubectl apply --server-side -f -
    kubectl label namespace iot --overwrite pod-security.kubernetes.io/enforce=restricted
    local name uri
    for name in hub warehouse; do
        uri=$DROVER_HUB_URI
        [ "$name" = hub ] || uri=${DROVER_STORE_WORKER_URI:-$DROVER_STORE_URI}
        # From standard input: what is secret is in no command line.
        printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: iot }\nstringData:\n  uri: "%s"\n' "$name" "$uri" \
            | kubectl apply --server-side --force-conflicts -f -
    done
}

table() {
    psql -qX -v ON_ERROR_STOP=1 "$DROVER_STORE_URI" -f docs/examples/telemetry.sql
    # Workers may write rows and nothing else.
    [ "$kind" != node ] || psql -qX -v ON_ERROR_STOP=1 "$DROVER_STORE_URI" -c 'grant select, insert, update on telemetry to drover_worker'
}

pipeline() { kubectl apply --server-side --force-conflicts -f docs/examples/telemetry.yaml; }

# Workers make the tables of state, and the result table, which the owner reads by being a member of their role.
state() {
    [ "$kind" = node ] || return 0
    psql -qX -v ON_ERROR_STOP=1 "$DROVER_STORE_ADMIN_URI" -c 'grant drover_worker to drover_owner'
    psql -qX -v ON_ERROR_STOP=1 "$DROVER_STORE_URI" -c 'create schema if not exists drover authorization drover_worker' \
        -c 'grant create on schema public to drover_worker'
}

query() { kubectl apply --server-side --force-conflicts -f docs/examples/prefecture-counts.yaml; }

# ready KIND NAME
ready() {
    local state
    state=$(kubectl -n iot get "$1" "$2" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.phase}: {.status.message}')
    echo "${state#* }" >&2
    [ "${state%% *}" = True ]
}

wait_ready() {
    local end=$((SECONDS + 180)) last='' now
    until now=$(ready "$@" 2>&1 > /dev/null); do
        [ "$now" = "$last" ] || { say "$now"; last=$now; }
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
}

devices_built() { cargo build --release -p drover-e2e --bin drover-devices; }

devices() {
    process_is "$(cat "$RUN/demo/devices.pid" 2> /dev/null)" drover-devices && return 0
    setsid "$TARGET/release/drover-devices" --devices 20 --rate 50 >> "$RUN/demo/devices.log" 2>&1 < /dev/null 9>&- &
    echo $! > "$RUN/demo/devices.pid"
    disown
    until_true 30 "no message was acknowledged" "$RUN/demo/devices.log" grep -q ' acknowledged' "$RUN/demo/devices.log"
}

rows() { psql -qXAt "$DROVER_STORE_URI" -c 'select count(*) from telemetry'; }
more_rows() { [ "$(rows)" -gt "$1" ]; }

[ -z "${DROVER_MQTT_URI:-}" ] || step "devices: compile" devices_built
step "Drover: custom resources" crds
step "Drover: operator (helm upgrade --install)" install
step "pipeline: namespace and secrets" secrets
step "pipeline: table" table
step "pipeline: docs/examples/telemetry.yaml" pipeline
step "pipeline: Ready" wait_ready ingestpipeline telemetry
step "query: schema of its state" state
step "query: docs/examples/prefecture-counts.yaml" query
step "query: Ready" wait_ready windowquery prefecture-counts
before=$(rows)
if [ -n "${DROVER_MQTT_URI:-}" ]; then
    export DROVER_MQTT_URI
    step "devices: publishing" devices
    step "rows arrive" until_true 60 "no new row" "$RUN/demo/devices.log" more_rows "$before"
else
    say "  DROVER_MQTT_URI is not set: no devices publish; send messages to amq.topic with routing key devices.1 yourself"
fi

source_env=". '$RUN/demo/env'; "
if [ "$kind" = context ]; then source_env="export KUBECONFIG='$NODE/kubeconfig'; "; fi
cat <<T

The demo is up ($(seconds_since "$start") s), $(rows) rows so far. Next:

  KUBECONFIG='$NODE/kubeconfig' '$BIN/kubectl' -n iot get ingestpipelines,windowqueries,pods
  ${source_env}psql "\$DROVER_STORE_URI" -c 'select pref, count(*), round(avg(temp)::numeric, 2) as temp, max(ts) as last from telemetry group by pref order by pref'
  ${source_env}watch -n 5 "psql '\$DROVER_STORE_URI' -c 'select * from prefecture_counts order by 2 desc, 1 limit 20'"   # a minute's rows come some seconds after its end
T
if [ "$kind" = node ]; then
    echo "  '$REPO/e2e/services/ctl.sh' demo rabbitmq restart; tail -n 5 '$RUN/demo/devices.log'   # the hub goes away and comes back; the rows go on"
else
    echo "  KUBECONFIG='$NODE/kubeconfig' '$BIN/kubectl' -n iot describe ingestpipeline telemetry"
fi
printf '\nmake demo-down takes all of it away.\n'
