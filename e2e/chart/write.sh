#!/usr/bin/env bash
# Writes what is made from other files: write.sh argocd|reference
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/../cluster/lib.sh"
# shellcheck source=e2e/chart/python.sh
. "$REPO/e2e/chart/python.sh"
case ${1:-} in argocd | reference) ;; *) die "write.sh argocd|reference" ;; esac
python_ready
python3 "$REPO/e2e/chart/$1.py" write
