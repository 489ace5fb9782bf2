#!/usr/bin/env bash
# Python with what the checks use, in a directory of its own. Sourced after cluster/lib.sh, never run.
CHECKS=$CACHE/checks
VENV=$CHECKS/venv-$(sha256sum "$REPO/e2e/chart/requirements.txt" | cut -c1-12)

python_tools() {
    rm -rf "$VENV"
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install -q --disable-pip-version-check -r "$REPO/e2e/chart/requirements.txt"
    touch "$VENV/complete"
}

# python_ready: installs it when it is not there, and puts it first in PATH.
python_ready() {
    command -v python3 > /dev/null || need_packages python3=python3
    python3 -c 'import ensurepip, venv' 2> /dev/null || need_packages /usr/share/doc/python3-venv=python3-venv
    mkdir -p "$CHECKS"
    [ -e "$VENV/complete" ] || step "install checkov and PyYAML" python_tools
    export PATH=$VENV/bin:$PATH
}
