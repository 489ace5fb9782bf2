"""The reference of the API, docs/src/reference.md, made from crds/*.yaml.

reference.py write   writes it
reference.py check   fails where it is not what `write` makes
"""

import re
import sys
from pathlib import Path

import yaml

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs/src/reference.md"
# Kubernetes' own types: their fields are told by `kubectl explain`.
FOREIGN = {"resources", "env", "envFrom", "egress", "tolerations", "affinity", "topologySpreadConstraints", "imagePullSecrets",
           "conditions", "volumeMounts", "volumes"}
HEAD = """# API reference

Made from the schema by `make reference`: every field of `drover.dev/v1alpha1`, with what the API server itself checks, where it is a rule in the words
of its refusal. Defaults are the operator's, and are not written into your objects. [IngestPipeline](ingest-pipeline.md) explains how fields work together; `kubectl explain ingestpipeline.spec --recursive` tells
the same from your cluster.
"""


def kind_of(schema):
    """The type of a field in a word."""
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if schema.get("type") == "array":
        inner = kind_of(schema.get("items", {}))
        return f"list of {inner}s" if " " not in inner and not inner.endswith("s") else f"list of {inner}"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        return f"map of {kind_of(inner)}s" if isinstance(inner, dict) else "map"
    return schema.get("type", "any value")


def number(value):
    return str(int(value)) if float(value).is_integer() else str(value)


def limits(schema, required):
    """What the API server checks."""
    told = ["required"] if required else []
    if "enum" in schema:
        told.append("one of " + ", ".join(f"`{one}`" for one in schema["enum"] if one is not None))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        told.append(f"{number(low)} to {number(high)}")
    elif low is not None:
        told.append(f"at least {number(low)}")
    elif high is not None:
        told.append(f"at most {number(high)}")
    for key, words in (("maxLength", "at most {} characters"), ("maxItems", "at most {} entries"), ("maxProperties", "at most {} entries"),
                       ("minItems", "at least {} entries")):
        if key in schema:
            told.append(words.format(number(schema[key])).replace("at least 1 entries", "not empty"))
    if "pattern" in schema:
        told.append(f"matches `{schema['pattern']}`")
    told += [rule["message"] for rule in schema.get("x-kubernetes-validations", []) if "message" in rule]
    return "; ".join(told)


def cell(text):
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def rows(schema, path):
    """A row for each field below."""
    required = schema.get("required", [])
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield f"| `{here}` | {kind_of(inner)} | {cell(limits(inner, name in required))} | {cell(inner.get('description', ''))} |"
        if name in FOREIGN:
            continue
        below = inner.get("items", inner) if inner.get("type") == "array" else inner
        yield from rows(below, here + ("[]" if inner.get("type") == "array" else ""))


def page():
    lines = [HEAD]
    for file in sorted((REPO / "crds").glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            names = spec["names"]
            lines.append(f"\n## {names['kind']}\n\n{cell(schema.get('description', ''))}\n")
            short = ", ".join(f"`{one}`" for one in names.get("shortNames", []))
            columns = ", ".join(one["name"] for one in version.get("additionalPrinterColumns", []))
            lines.append(f"\nShort name {short}. Columns: {columns}.\n")
            for part, title in (("spec", "spec"), ("status", "status")):
                inner = schema["properties"][part]
                lines.append(f"\n### {names['kind']} {title}\n\n| field | type | checked | what |\n| --- | --- | --- | --- |\n")
                lines += [row + "\n" for row in rows(inner, "")]
                rules = [rule["message"] for rule in inner.get("x-kubernetes-validations", []) if "message" in rule]
                if rules:
                    lines.append("\nAnd of all of it:\n\n" + "".join(f"- {cell(rule)}\n" for rule in rules))
    return "".join(lines)


def write():
    PAGE.write_text(page())


def check():
    if not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"{PAGE} does not tell the schema as it is: make reference")
    print("reference.md is current")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]]()
