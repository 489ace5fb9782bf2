"""Writes JSON schemas for kubeconform, one a kind, and strict: a field that a schema does not name is refused.

schemas.py OUT openapi FILE…   from documents of an API server's /openapi/v3
schemas.py OUT crds FILE…      from CustomResourceDefinitions
"""

import json
import sys
from pathlib import Path

import yaml


def strict(schema):
    """Properties that are named are all there are, where nothing else is said."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    # The names of properties are no words of the schema.
    named = {name: strict(inner) for name, inner in schema.get("properties", {}).items()}
    schema = {key: strict(value) for key, value in schema.items() if key not in ("description", "properties")}
    if named:
        schema["properties"] = named
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if schema.pop("nullable", False) and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def inlined(schema, all_of_them, above=()):
    """References replaced by what they name; a type inside itself is taken as it comes."""
    if isinstance(schema, list):
        return [inlined(one, all_of_them, above) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        name = schema["$ref"].rsplit("/", 1)[1]
        return {} if name in above else inlined(all_of_them[name], all_of_them, (*above, name))
    parts = schema.get("allOf")
    if isinstance(parts, list) and len(parts) == 1:
        rest = {key: value for key, value in schema.items() if key not in ("allOf", "default", "description")}
        return {**inlined(parts[0], all_of_them, above), **rest}
    return {key: inlined(value, all_of_them, above) for key, value in schema.items()}


def quantities(schema):
    """A quantity may be written as a number."""
    schema["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"type": ["string", "number"]}
    schema["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    return schema


def write(out, group, version, kind, schema):
    schema["properties"] |= {
        "apiVersion": {"enum": [f"{group}/{version}" if group else version]}, "kind": {"enum": [kind]}}
    schema["required"] = sorted({"apiVersion", "kind", *schema.get("required", [])})
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part)
    Path(out, f"{name}.json").write_text(json.dumps(schema))


def openapi(out, files):
    for file in files:
        types = quantities(json.loads(Path(file).read_text()).get("components", {}).get("schemas", {}))
        for schema in list(types.values()):
            for it in schema.get("x-kubernetes-group-version-kind", []):
                if "properties" in schema and not it["kind"].endswith(("List", "Options")):
                    write(out, it["group"], it["version"], it["kind"], strict(inlined(schema, types)))


def crds(out, files):
    for file in files:
        for crd in yaml.safe_load_all(Path(file).read_text()):
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                # Names are checked by the API server; a generated one is no name.
                schema["properties"] |= {"metadata": {"type": "object"}}
                write(out, spec["group"], version["name"], spec["names"]["kind"], schema)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    {"openapi": openapi, "crds": crds}[sys.argv[2]](sys.argv[1], sys.argv[3:])
