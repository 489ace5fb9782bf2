"""names.py NAMES CRD…: fails where Kustomize is not told of a field of the CRDs that names a secret, a ConfigMap or an image."""

import sys
from pathlib import Path

import yaml


def fields(schema, path=""):
    """Paths of all fields, as Kustomize writes them; none below names that people choose."""
    for name, field in schema.get("properties", {}).items():
        below = f"{path}/{name}".lstrip("/")
        yield below
        yield from fields(field.get("items", field), below)


def meant(path):
    """What a field names, if it does."""
    if path.endswith(("secretRef/name", "imagePullSecrets/name")):
        return "Secret"
    if path.endswith("configMapRef/name"):
        return "ConfigMap"
    return "image" if path.endswith("/image") else None


def wanted(crds):
    for crd in crds:
        spec = yaml.safe_load(Path(crd).read_text())["spec"]
        for path in fields(spec["versions"][0]["schema"]["openAPIV3Schema"]):
            if path.startswith("spec/") and meant(path):
                yield meant(path), spec["names"]["kind"], path


def told(names):
    for reference in names["nameReference"]:
        for field in reference["fieldSpecs"]:
            yield reference["kind"], field["kind"], field["path"]
    for field in names["images"]:
        yield "image", field["kind"], field["path"]


if __name__ == "__main__":
    wrong = set(wanted(sys.argv[2:])) ^ set(told(yaml.safe_load(Path(sys.argv[1]).read_text())))
    for what, kind, path in sorted(wrong):
        print(f"{sys.argv[1]}: {kind} {path} ({what}) is missing, or is no field")
    sys.exit(bool(wrong))
