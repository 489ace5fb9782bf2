"""Code in the documentation, and what it says of other files. Links between pages are tested with the API (crds/tests/docs.rs).

docs.py OUT   parses every block, compares those that quote an example with it, writes the Kubernetes objects of pages and examples to OUT for kubeconform, and checks
              links to files of this repository, that each alert is in the runbook, that reasons named elsewhere exist, and that Argo CD's script knows each
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import hcl2
import yaml

REPO = Path(__file__).resolve().parents[2]
OWN = "https://github.com/drover-dev/drover/"
# The conditions by whose reasons docs/examples/argocd/health.lua tells a fault from what is waited for.
JUDGED = ["HubReady", "StoreReady", "WorkersReady", "DeadLetterSafe"]
# Reasons that it waits for though the page does not say "wait": another object of the same sync, the operator or a server that comes back may end them.
WAITED_FOR = {
    "SecretNotFound", "HostNotFound", "Unreachable", "Timeout", "QueueMissing", "ExchangeMissing", "StreamNotFound", "StreamRefused", "Unroutable",
    "ManagementUnreachable", "ManagementFailed", "TableNotFound", "TooManyConnections", "ReadOnly", "NotStarted", "TooManyDeadLetters",
}
problems = []


def pages():
    yield from sorted((REPO / "docs").rglob("*.md"))
    yield from (REPO / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/drover/README.md"))


def blocks(text):
    """Fenced blocks with their language; a fence may be indented."""
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.M | re.S):
        yield match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.M)


def parse(language, code):
    """Fails where a block is not what it says it is."""
    if language == "yaml":
        list(yaml.safe_load_all(code))
    elif language == "json":
        json.loads(code)
    elif language == "hcl":
        hcl2.loads(code)
    elif language == "sh":
        done = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)


def anchors(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    for title in re.findall(r"^#+ (.*)$", text, re.M):
        yield "".join("-" if c == " " else c for c in title.lower().strip() if c.isalnum() or c in " -_")


def own_link(place, link):
    """A link to this repository on GitHub leads to a file, and to a heading of it."""
    match = re.match(re.escape(OWN) + r"(?:blob|tree)/main/([^#\s]+)(?:#(\S+))?$", link)
    if not match:
        return
    target = REPO / match[1]
    if not target.exists():
        problems.append(f"{place}: {link}: there is no {match[1]}")
    elif match[2] and match[2] not in set(anchors(target)):
        problems.append(f"{place}: {link}: {match[1]} has no such heading")


def objects(out):
    """Documents that are Kubernetes objects, a file each."""
    sources = [(page, code) for page in pages() for language, code in blocks(page.read_text()) if language == "yaml"]
    sources += [(file, file.read_text()) for file in sorted((REPO / "docs/examples").rglob("*.yaml")) if "testdata" not in file.parts]
    count = 0
    for place, text in sources:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and {"apiVersion", "kind"} <= document.keys() and document["kind"] != "Kustomization":
                count += 1
                name = str(place.relative_to(REPO)).replace("/", "_")
                Path(out, f"{name}.{count}.yaml").write_text(yaml.safe_dump(document))
    return count


def same_as_files():
    """A block that is said to be from a file is that file, comments apart."""
    for page in pages():
        quoted = re.findall(r"from `(docs/examples/[^`]+)`[^`]*?\n```\w+\n(.*?)```", page.read_text(), re.S)
        for name, code in quoted:
            plain = [line for line in (REPO / name).read_text().splitlines() if not line.startswith(("#", "--"))]
            if code.splitlines() != plain:
                problems.append(f"{page.relative_to(REPO)}: the block from {name} is not that file")


def told():
    """What other files speak of is in the pages."""
    runbook = (REPO / "docs/src/runbook.md").read_text()
    rules = yaml.safe_load((REPO / "charts/drover/files/alerts.yaml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if f"### {rule['alert']}\n" not in runbook:
            problems.append(f"docs/src/runbook.md does not tell of {rule['alert']}")
        own_link(rule["alert"], rule["annotations"]["runbook_url"])
    conditions = (REPO / "docs/src/conditions.md").read_text()
    health = (REPO / "docs/examples/argocd/health.lua").read_text()
    faults = set(re.findall(r"(\w+) = true", health))
    for reason in sorted(faults):
        if f"`{reason}`" not in conditions:
            problems.append(f"docs/examples/argocd/health.lua names {reason}, which is not in docs/src/conditions.md")
    judged(conditions, faults)


def judged(conditions, faults):
    """Each reason of what is False is either a fault to Argo CD's script or waited for."""
    waited, seen = set(WAITED_FOR), set()
    for name in JUDGED:
        section = re.search(rf"^## {name}:.*?(?=^## )", conditions, re.M | re.S)[0]
        for reasons, remedy in re.findall(r"^\| (`.*?) \| .*? \| (.*?) ?\|$", section, re.M):
            # One with a status is True or Unknown, and where there is nothing to do all is well, or another row tells it.
            if "(status" not in reasons and remedy:
                seen.update(re.findall(r"`(\w+)`", reasons))
                waited.update(re.findall(r"`(\w+)`", reasons) if remedy.startswith("wait") else ())
    for reason in sorted(seen - faults - waited):
        problems.append(f"docs/src/conditions.md has {reason}: is it a fault of docs/examples/argocd/health.lua, or in WAITED_FOR of e2e/chart/docs.py?")
    for reason in sorted(faults & waited):
        problems.append(f"{reason} is a fault in docs/examples/argocd/health.lua, and waited for in e2e/chart/docs.py or docs/src/conditions.md")
    for reason in sorted(WAITED_FOR - seen):
        problems.append(f"WAITED_FOR of e2e/chart/docs.py has {reason}, which docs/src/conditions.md does not have there")


def main(out):
    Path(out).mkdir(parents=True, exist_ok=True)
    parsed = 0
    for page in pages():
        text = page.read_text()
        for language, code in blocks(text):
            parsed += 1
            try:
                parse(language, code)
            except Exception as error:  # each parser has errors of its own
                problems.append(f"{page.relative_to(REPO)}: a block of {language} is wrong: {error}\n{code}")
        for link in re.findall(r"\]\((https:[^)\s]+)\)", text):
            own_link(page.relative_to(REPO), link)
    told()
    same_as_files()
    count = objects(out)
    if problems:
        raise SystemExit("\n".join(problems))
    print(f"{parsed} blocks are sound, {count} objects are to be validated")


if __name__ == "__main__":
    main(sys.argv[1])
