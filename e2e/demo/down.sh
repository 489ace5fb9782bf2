#!/usr/bin/env bash
# Takes the demo away: devices, Drover, services, cluster. On a cluster of yours: what the demo put there.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
export HELM_CACHE_HOME=$CACHE/helm HELM_CONFIG_HOME=$CACHE/helm HELM_DATA_HOME=$CACHE/helm
kind=$(the_cluster)
locked demo

devices=$(cat "$RUN/demo/devices.pid" 2> /dev/null || true)
if process_is "$devices" drover-devices; then kill "$devices" 2> /dev/null || true; fi

uninstall() {
    # Objects first: the operator has to be there to finish them.
    kubectl delete namespace iot --ignore-not-found --timeout 2m
    helm uninstall drover --namespace drover-system --ignore-not-found --wait
    kubectl delete namespace drover-system --ignore-not-found --timeout 2m
    kubectl delete --ignore-not-found -f "$REPO/crds/"
}

if [ "$kind" = node ] && [ ! -e "$RUN/test/env" ]; then
    "$REPO/e2e/cluster/down.sh" 9>&-
    rm -rf "$RUN/demo"
else
    export KUBECONFIG=$NODE/kubeconfig PATH=$BIN:$PATH
    [ ! -e "$KUBECONFIG" ] || step "Drover: uninstall" uninstall
    case $kind in
        node)
            "$REPO/e2e/services/ctl.sh" demo down 9>&-
            say "the node stays: the services of the tests are up in it (make cluster-down takes it away)"
            ;;
        kind)
            # Not tried: no Docker where this was written.
            docker rm -f drover-rabbitmq drover-postgres
            "$REPO/e2e/cluster/down.sh" 9>&-
            rm -rf "$RUN/demo"
            ;;
        context) rm -rf "$RUN/demo" ;;
    esac
fi
say "demo: down"
