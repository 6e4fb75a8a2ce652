"""Writes what follows from something else: the chart's version, parts of its schema, the table in its README, and k8s.

``python deploy/helm/generate.py`` writes, ``--check`` only tells what is not current, and fails then.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr
from render import CHART, render

from searchr1.environment import variable_of
from searchr1.settings import Settings
from searchr1_client import __version__

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.34.0"
"""The release whose types stand in the schema."""
KUBERNETES_TYPES = {
    "affinity": "io.k8s.api.core.v1.Affinity",
    "toleration": "io.k8s.api.core.v1.Toleration",
    "peer": "io.k8s.api.networking.v1.NetworkPolicyPeer",
}
OF_THE_CHART = frozenset(
    {
        "model",
        "served_name",
        "tokenizer",
        "retriever",
        "engine",
        "engine_url",
        "engine_priority",
        "host",
        "port",
        "ops_host",
        "ops_port",
        "open",
    }
    | {"drain_s", "shutdown_grace_s", "provider_keys"}
)
"""Settings that have values of their own in the chart, or none."""
BASE_VALUES = {
    "model": {"name": "searchr1-7b"},
    "engine": {"url": "https://vllm.example.org"},
    "search": {"providers": "tavily:"},
    "gateway": {"existingSecret": "searchr1"},
}
"""Values with which the chart renders k8s/base: the gateway alone."""
COMPONENTS = ("retriever", "valkey", "vllm")
"""Parts under k8s/components; the chart renders them with the values of examples/one-gpu.yaml."""
NAMESPACE = "searchr1"
_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
_COMPONENT = "app.kubernetes.io/component"
OF_HELM = ("app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that say that Helm manages an object."""


def chart() -> str:
    """Return Chart.yaml with the version of the server, which is the chart's too."""
    text = (CHART / "Chart.yaml").read_text("utf-8")
    return re.sub(r"^(version|appVersion): .*$", rf"\g<1>: {__version__}", text, flags=re.MULTILINE)


def settings_schema() -> dict[str, Any]:
    """Return the schema of a map of settings that are neither secret nor the chart's own."""
    found = Settings.model_json_schema()
    properties = {}
    for name, field in Settings.model_fields.items():
        if name in OF_THE_CHART or SecretStr.__name__ in str(field.annotation):
            continue
        schema = {key: value for key, value in found["properties"][name].items() if key not in ("default", "title")}
        if [one for one in field.metadata if getattr(one, "__name__", "") == "NoDecode"]:
            schema = {"type": "string", "minLength": 1}  # several with commas between them
        for either in schema.pop("anyOf", ()):
            if either["type"] != "null":
                schema |= either
        properties[variable_of(name)] = schema
    return {"type": "object", "additionalProperties": False, "properties": properties}


def kubernetes_schemas() -> dict[str, Any]:
    """Return the strict schemas of Kubernetes' own types, with all that they refer to, without descriptions."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    known = json.loads((folder / "_definitions.json").read_text("utf-8"))["$defs"]
    wanted, taken = list(KUBERNETES_TYPES.values()), {}
    while wanted:
        if (name := wanted.pop()) not in taken:
            text = json.dumps(known[name])
            text = re.sub(r'"\$ref": "[^#"]*#/\$defs/([^"]+)"', r'"$ref": "#/$defs/\1"', text)
            taken[name] = _bare(json.loads(text))
            wanted += re.findall(r'"#/\$defs/([^"]+)"', text)
    return {short: {"$ref": f"#/$defs/{name}"} for short, name in KUBERNETES_TYPES.items()} | dict(
        sorted(taken.items())
    )


def _bare(schema: Any) -> Any:
    """Return ``schema`` without what validates nothing."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    noise = {name for name, value in schema.items() if name.startswith("x-kubernetes") or name == "format"}
    noise |= {"description"} if isinstance(schema.get("description"), str) else set()
    return {name: _bare(value) for name, value in schema.items() if name not in noise}


def values_schema() -> str:
    """Return values.schema.json with its generated definitions."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text("utf-8"))
    by_hand = {name: one for name, one in schema["$defs"].items() if "io.k8s" not in json.dumps([name, one])}
    schema["$defs"] = by_hand | {"settings": settings_schema()} | kubernetes_schemas()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def described_values(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and description of every value that has a ``# --`` line above it."""
    values, path, description = yaml.safe_load(text), list[tuple[int, str]](), ""
    for line in text.splitlines():
        if said := re.match(r" *# -- (.*)", line):
            description = said[1]
        elif key := re.match(r"( *)(\w+):", line):
            depth = len(key[1])
            path = [one for one in path if one[0] < depth] + [(depth, key[2])]
            if description:
                default = values
                for _, name in path:
                    default = default[name]
                yield ".".join(name for _, name in path), json.dumps(default), description
            description = ""


def readme() -> str:
    """Return the chart's README with its table of values."""
    path = CHART / "README.md"
    head, _, _ = path.read_text("utf-8").partition("## Values\n")
    rows = described_values((CHART / "values.yaml").read_text("utf-8"))
    lines = ["## Values", "", "| value | default | |", "|---|---|---|"]
    lines += [f"| `{name}` | {f'`{default}`'.replace('|', chr(92) + '|')} | {said} |" for name, default, said in rows]
    return head + "\n".join(lines) + "\n"


def manifests() -> Iterator[tuple[Path, str]]:
    """Yield the files under k8s that the chart renders, less what is Helm's: the gateway, and each component."""
    folder = ROOT / "k8s" / "base"
    names = []
    for template, objects in _objects(BASE_VALUES).items():
        names.append(Path(template).name.removeprefix("gateway-"))
        yield folder / names[-1], _manifest(objects)
    yield folder / "namespace.yaml", _manifest([_NAMESPACE])
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": sorted([*names, "namespace.yaml"]),
    }
    yield folder / "kustomization.yaml", _manifest([kustomization])
    values = yaml.safe_load((CHART / "examples" / "one-gpu.yaml").read_text("utf-8"))
    found = [one for objects in _objects(values).values() for one in objects]
    for name in COMPONENTS:
        objects = [one for one in found if one["metadata"]["labels"][_COMPONENT] == name]
        yield ROOT / "k8s" / "components" / name / f"{name}.yaml", _manifest(objects)


def overlays() -> Iterator[tuple[Path, str]]:
    """Yield the files of the overlays, which are written by hand but for the version in their labels."""
    for path in sorted((ROOT / "k8s" / "overlays").rglob("*.yaml")):
        text = path.read_text("utf-8")
        yield path, re.sub(r"(app\.kubernetes\.io/version: ).*", rf"\g<1>{__version__}", text)


def _objects(values: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what the chart installs, by template."""
    rendered = render(values | {"fullnameOverride": "searchr1"}, name="searchr1", namespace=NAMESPACE)
    texts = {name: text for name, text in rendered.items() if name.endswith(".yaml") and "/tests/" not in name}
    found = {name: [without_helm(one) for one in yaml.safe_load_all(text) if one] for name, text in texts.items()}
    for objects in found.values():
        for one in objects:
            del one["metadata"]["namespace"]  # kustomize sets it, and finds what it patches without it
    return {name: objects for name, objects in sorted(found.items()) if objects}


def _manifest(objects: list[Any]) -> str:
    head = "# Written by deploy/helm/generate.py, from the chart.\n"
    return head + yaml.safe_dump_all(objects, sort_keys=False, width=120)


def without_helm(value: Any) -> Any:
    """Return an object without Helm's labels."""
    if isinstance(value, list):
        return [without_helm(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: without_helm(one) for name, one in value.items() if name not in OF_HELM}


def generated() -> Iterator[tuple[Path, str]]:
    """Yield every generated file with its content. What Helm renders by comes first."""
    yield CHART / "Chart.yaml", chart()
    yield CHART / "values.schema.json", values_schema()
    yield CHART / "README.md", readme()
    yield from manifests()
    yield from overlays()


def main() -> int:
    """Write the files, or tell which are not current. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not current")
    check = parser.parse_args().check
    known, stale = set[Path](), set[Path]()
    for path, text in generated():
        known.add(path)
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.add(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    for path in {*(ROOT / "k8s" / "base").glob("*.yaml")} - known:
        stale.add(path)
        if not check:
            path.unlink()
    for path in sorted(stale):
        print(path.relative_to(ROOT))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
