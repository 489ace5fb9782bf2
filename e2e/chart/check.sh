#!/usr/bin/env bash
# What people get beside the binaries: the chart, its alerts and dashboard, the scripts for Argo CD, overlays, pages, and our shell scripts.
# Each step says how long it took; the last line counts them as cargo does. Helm's own tests of the chart are in crds/tests/chart.rs.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
# shellcheck source=e2e/chart/versions
. "$REPO/e2e/chart/versions"
# shellcheck source=e2e/chart/python.sh
. "$REPO/e2e/chart/python.sh"
cd "$REPO"
SCHEMAS=$CHECKS/schemas-$(cat crds/*.yaml e2e/chart/{versions,schemas.py} e2e/cluster/go/kubernetes/go.sum | sha256sum | cut -c1-12)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0
export PATH=$BIN:$PATH
# Helm and checkov keep their own things here, and ask nobody on the net.
export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm
unset KUBECONFIG

# check TITLE COMMAND…: a step that counts, and does not keep the others from running.
check() {
    local status
    # Not in a condition: there, a failure would end nothing.
    set +e
    (set -e; step "$@")
    status=$?
    set -e
    if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# module NAME VERSION: the directory of a Go module's sources, which are fetched when they are not there.
module() { cd "$scratch" && go mod download -json "$1@$2" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'; }

schemas() {
    local kubernetes prometheus argocd version
    version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' e2e/cluster/go/kubernetes/go.mod)
    kubernetes=$(module k8s.io/kubernetes "$version")
    prometheus=$(module github.com/prometheus-operator/prometheus-operator "$PROMETHEUS_OPERATOR_VERSION")/example/prometheus-operator-crd
    argocd=$(module github.com/argoproj/argo-cd/v3 "$ARGOCD_VERSION")/manifests/crds
    rm -rf "$SCHEMAS.new"
    # What this version's API server answers at /openapi/v3, but for the values of enums.
    python3 e2e/chart/schemas.py "$SCHEMAS.new" openapi "$kubernetes"/api/openapi-spec/v3/*.json
    python3 e2e/chart/schemas.py "$SCHEMAS.new" crds crds/*.yaml "$argocd"/application{,set}-crd.yaml \
        "$prometheus"/monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml
    mv "$SCHEMAS.new" "$SCHEMAS"
}

cluster_is_up() { [ -e "$NODE/kubeconfig" ] && kubectl --kubeconfig "$NODE/kubeconfig" get --raw /version --request-timeout 3s > /dev/null 2>&1; }

# live_schemas: what a running API server says of the groups that manifests here use, in place of what its sources say.
live_schemas() {
    local group
    cp -r "$SCHEMAS" "$scratch/schemas"
    for group in api/v1 apis/{apps,batch,policy,apiextensions.k8s.io,networking.k8s.io,rbac.authorization.k8s.io}/v1; do
        kubectl --kubeconfig "$NODE/kubeconfig" get --raw "/openapi/v3/$group" --request-timeout 30s > "$scratch/openapi-${group//\//-}.json"
    done
    python3 e2e/chart/schemas.py "$scratch/schemas" openapi "$scratch"/openapi-*.json
}

conform() { kubeconform -strict -summary -schema-location "$SCHEMAS/{{.ResourceKind}}{{.KindSuffix}}.json" "$@"; }

render() {
    local values name
    for values in charts/drover/ci/*-values.yaml; do
        name=$(basename "$values" -values.yaml)
        mkdir -p "$scratch/chart" "$scratch/no-crds"
        helm template drover charts/drover --namespace drover-system --values "$values" > "$scratch/chart/$name.yaml"
        helm template drover charts/drover --namespace drover-system --values "$values" --set crds.install=false > "$scratch/no-crds/$name.yaml"
    done
}

chart_conforms() {
    conform "$scratch/chart"
    # And a field that nobody knows is refused.
    sed 's/terminationGracePeriodSeconds/terminationGraceSeconds/' "$scratch/chart/minimal.yaml" > "$scratch/wrong.yaml"
    ! conform "$scratch/wrong.yaml" || die "a field that does not exist is taken: the schemas are not strict"
}

security() { checkov --config-file e2e/chart/checkov.yaml --directory "$scratch/no-crds"; }

alerts() {
    promtool check rules charts/drover/files/alerts.yaml
    promtool test rules e2e/chart/alerts_test.yaml
    python3 - <<'PYTHON'
import re
from pathlib import Path
alerts = set(re.findall(r"alert: (\w+)", Path("charts/drover/files/alerts.yaml").read_text()))
tested = Path("e2e/chart/alerts_test.yaml").read_text()
for alert in sorted(alerts):
    cases = re.findall(rf"alertname: {alert}\b(.*?)(?=alertname:|\Z)", tested, re.S)
    assert any("exp_labels" in case for case in cases), f"no test fires {alert}"
    assert any("exp_alerts: []" in case for case in cases), f"no test leaves {alert} silent"
PYTHON
}

overlays() {
    local overlay
    for overlay in docs/examples/kustomize/overlays/*/; do
        kubectl kustomize "$overlay" > "$scratch/overlay.yaml"
        conform "$scratch/overlay.yaml"
    done
    kubectl kustomize docs/examples/kustomize/overlays/staging | grep -A1 secretRef: | grep -q 'name: hub-[a-z0-9]' \
        || die "the generated name of a secret does not reach spec.hub.secretRef"
    python3 e2e/chart/names.py docs/examples/kustomize/base/names.yaml crds/*.yaml
}

pages() {
    python3 e2e/chart/docs.py "$scratch/pages"
    conform "$scratch/pages"
}

# metrics.md itself has the names that histograms are registered by.
metric_names() {
    local pages=()
    mapfile -t pages < <(git ls-files 'docs/src/*.md' ':!docs/src/metrics.md')
    python3 e2e/chart/metrics.py names charts/drover/files/{alerts.yaml,dashboard.json} "${pages[@]}"
}

shell_scripts() { git ls-files -z '*.sh' | xargs -0 shellcheck --external-sources; }

# What a release has of the chart; no file in it has the time of its packaging.
dist() {
    SOURCE_DATE_EPOCH=86400 DROVER_DIST=$scratch/dist "$REPO/e2e/dist.sh" chart
    [ "$(tar --utc -tvzf "$scratch"/dist/drover-[0-9]*.tgz | awk '{ print $4 }' | sort -u)" = 1970-01-02 ]
    (cd "$scratch/dist" && sha256sum --check SHA256SUMS)
    helm template drover "$scratch"/dist/drover-[0-9]*.tgz --set image.registry=registry.example > "$scratch/packaged.yaml"
    conform "$scratch/packaged.yaml" "$scratch"/dist/drover-crds-*.yaml
}

need_packages promtool=prometheus prometheus=prometheus lua5.1=lua5.1 shellcheck=shellcheck
"$REPO/e2e/cluster/build.sh" clients
python_ready
[ -d "$SCHEMAS" ] || step "schemas of Kubernetes and of others" schemas

if cluster_is_up; then
    step "schemas of the API server that runs" live_schemas
    SCHEMAS=$scratch/schemas
fi

step "render every values example" render
check "chart: kubeconform, strict" chart_conforms
check "chart: checkov" security
check "chart: dist, checksums, the package renders" dist
check "alerts: promtool" alerts
check "metrics: names are those of the sources" metric_names
check "dashboard: Prometheus answers" python3 e2e/chart/metrics.py answers charts/drover/files/dashboard.json
check "Argo CD: scripts" python3 e2e/chart/argocd.py test
check "Argo CD: argocd-cm.yaml is current" python3 e2e/chart/argocd.py check
check "Kustomize: overlays" overlays
check "docs: reference.md is current" python3 e2e/chart/reference.py check
check "docs: metrics.md is current" python3 e2e/chart/metrics.py check
check "docs: blocks, objects, links, alerts" pages
check "shellcheck" shell_scripts
echo "test result: $([ "$failed" = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; 0 ignored"
[ "$failed" = 0 ]
