#!/usr/bin/env bash
# Writes what is made from other files: write.sh argocd|reference|metrics …
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
# shellcheck source=e2e/chart/python.sh
. "$REPO/e2e/chart/python.sh"
python_ready
for what in "$@"; do
    case $what in argocd | reference | metrics) ;; *) die "write.sh argocd|reference|metrics …" ;; esac
    python3 "$REPO/e2e/chart/$what.py" write
done
