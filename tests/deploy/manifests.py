"""What the chart, kustomize and Compose make: rendering, and looking things up in it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "searchr1"
VALUES_FILES = sorted([*CHART.glob("ci/*-values.yaml"), *CHART.glob("examples/*.yaml")])
CUSTOM = ("gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")
"""Groups of custom resources that the chart uses."""

Object = dict[str, Any]


class Helm:
    """A client of ``deploy/helm/render.py`` that runs as ``process``."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def render(self, values: Object, **options: str) -> list[Object]:
        """Return the objects that the chart makes. Raises ``ValueError`` with Helm's message."""
        texts = self._ask(do="render", values=values, **options)
        return [
            one for name, text in texts.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text) if one
        ]

    def notes(self, values: Object) -> str:
        """Return what is said after an install."""
        texts = self._ask(do="render", values=values)
        return str(next(text for name, text in texts.items() if name.endswith("NOTES.txt")))

    def lint(self, values: Object) -> list[str]:
        """Return what the linter warns of."""
        found: list[str] = self._ask(do="lint", values=values)
        return found

    def _ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["result"]


def load(path: Path) -> Object:
    """Return the one document of a YAML file."""
    found: Object = yaml.safe_load(path.read_text("utf-8"))
    return found


def key(one: Object) -> str:
    """Return kind and name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def by_key(objects: list[Object]) -> dict[str, Object]:
    """Return objects by kind and name, each of which is there once."""
    found = {key(one): one for one in objects}
    assert len(found) == len(objects)
    return found


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the pods that objects make, with the key of what makes each."""
    for one in objects:
        if one["kind"] == "Pod":
            yield key(one), one["spec"]
        elif "template" in one.get("spec", {}):
            yield key(one), one["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield all containers, each with where it runs."""
    for where, spec in pod_specs(objects):
        for one in [*spec["containers"], *spec.get("initContainers", ())]:
            yield f"{where}/{one['name']}", one


def environment(container: Object) -> dict[str, Any]:
    """Return a container's variables: each one's value, or where it comes from."""
    found = {one["name"]: one.get("value", one.get("valueFrom")) for one in container.get("env", ())}
    assert len(found) == len(container.get("env", ()))
    return found


def check_by_kubernetes(objects: list[Object], version: str) -> None:
    """Raise where one of ``objects`` is not what that release of Kubernetes takes. Custom resources are left out."""
    own = [one for one in objects if not one["apiVersion"].startswith(CUSTOM)]
    assert own
    for one in own:
        kubernetes_validate.validate(one, version, strict=True)


def wrong_custom_resources(folder: Path, objects: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with custom resources by their projects' schemas."""
    done = subprocess.run(
        ["node", "validate.mjs"],
        cwd=folder,
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found: list[str] = json.loads(done.stdout)
    return found
