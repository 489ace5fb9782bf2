"""The scripts for Argo CD in docs/examples/argocd: their tests, and the ConfigMap that carries them.

argocd.py test    runs health_test.yaml, actions/action_test.yaml and application/health_test.yaml, in the form of Argo CD's own resource_customizations
argocd.py write   writes argocd-cm.yaml from the scripts
argocd.py check   fails where argocd-cm.yaml is not what `write` makes
"""

import json
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "docs/examples/argocd"
APPLICATION = SCRIPTS / "application"
CONFIG = SCRIPTS / "argocd-cm.yaml"
KINDS = ("IngestPipeline", "WindowQuery")
HEAD = """# Health and actions of Drover's kinds, and health of Applications. Made from health.lua, actions/ and application/health.lua by
# `make argocd`; merge it into your argocd-cm, or
#   kubectl -n argocd patch configmap argocd-cm --type merge --patch-file docs/examples/argocd/argocd-cm.yaml
"""


def literal(value):
    """A value as Lua writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"[{json.dumps(key)}]={literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ",".join(literal(inner) for inner in value) + "}"
    return "nil" if value is None else json.dumps(value)


def run(script, value):
    """What a script returns for an object."""
    done = subprocess.run(["lua5.1", HERE / "sandbox.lua", script], input=literal(value), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script}: {done.stderr}")
    return json.loads(done.stdout)


def load(path):
    return yaml.safe_load(path.read_text())


def bare(value):
    """Without what is empty: Lua cannot tell an empty map from an empty list, and Argo CD puts back what was empty before."""
    if isinstance(value, dict):
        kept = {key: bare(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [])}
    return [bare(inner) for inner in value] if isinstance(value, list) else value


def test():
    failures, count = [], 0

    def same(what, got, wanted):
        nonlocal count
        count += 1
        if got != wanted:
            failures.append(f"{what}:\n  got    {json.dumps(got, sort_keys=True)}\n  wanted {json.dumps(wanted, sort_keys=True)}")

    for directory in (SCRIPTS, APPLICATION):
        for case in load(directory / "health_test.yaml")["tests"]:
            got = run(directory / "health.lua", load(directory / case["inputPath"]))
            same(f"health of {directory.name}/{case['inputPath']}", got, case["healthStatus"])
    actions = SCRIPTS / "actions"
    cases = load(actions / "action_test.yaml")
    for case in cases["discoveryTests"]:
        got = run(actions / "discovery.lua", load(actions / case["inputPath"]))
        same(f"actions of {case['inputPath']}", got, {one["name"]: {"disabled": one["disabled"]} for one in case["result"]})
    for case in cases["actionTests"]:
        got = run(actions / case["action"] / "action.lua", load(actions / case["inputPath"]))
        same(f"{case['action']} of {case['inputPath']}", bare(got), bare(load(actions / case["expectedOutputPath"])))
    untried = {path.parent.name for path in actions.glob("*/action.lua")} - {case["action"] for case in cases["actionTests"]}
    same("actions without a test", sorted(untried), [])
    if failures:
        raise SystemExit("\n".join(failures))
    print(f"{count} cases pass")


def indented(text, spaces):
    return "".join(" " * spaces + line if line.strip() else line for line in text.splitlines(keepends=True))


def config():
    """The ConfigMap; a patch of argocd-cm, for it may have data of its own."""
    lines = [HEAD, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n",
             "  labels:\n    app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n"]
    actions = SCRIPTS / "actions"
    names = sorted(path.parent.name for path in actions.glob("*/action.lua"))
    for kind in KINDS:
        lines.append(f"  resource.customizations.health.drover.dev_{kind}: |\n{indented((SCRIPTS / 'health.lua').read_text(), 4)}")
        lines.append(f"  resource.customizations.actions.drover.dev_{kind}: |\n    discovery.lua: |\n")
        lines.append(indented((actions / "discovery.lua").read_text(), 6) + "    definitions:\n")
        for name in names:
            script = indented((actions / name / "action.lua").read_text(), 10)
            lines.append(f"      - name: {name}\n        action.lua: |\n{script}")
    lines.append("  # Without it, a wave of Applications does not wait for those before.\n")
    lines.append(f"  resource.customizations.health.argoproj.io_Application: |\n{indented((APPLICATION / 'health.lua').read_text(), 4)}")
    return "".join(lines)


def write():
    CONFIG.write_text(config())


def check():
    if CONFIG.read_text() != config():
        raise SystemExit(f"{CONFIG} is not made from the scripts as they are: make argocd")
    data = load(CONFIG)["data"]
    for kind in KINDS:
        if yaml.safe_load(data[f"resource.customizations.actions.drover.dev_{kind}"])["discovery.lua"].count("actions[") < 6:
            raise SystemExit(f"actions of {kind} cannot be read back")
    print("argocd-cm.yaml is current")


if __name__ == "__main__":
    {"test": test, "write": write, "check": check}[sys.argv[1]]()
