"""Real Helm, from the wheel of its SDK: renders and lints the chart without a cluster.

As a program it answers one JSON object a line, ``{"do": "render" | "lint", …}``, on standard input: the SDK is a Go
library, which is better kept out of a process that forks or handles signals.
"""

import json
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
from helm_python import _native as native

CHART = Path(__file__).parent / "searchr1"
KUBE_VERSION = "v1.34.0"


def render(
    values: dict[str, Any],
    *,
    name: str = "release",
    namespace: str = "default",
    kube_version: str = KUBE_VERSION,
    chart: str = str(CHART),
) -> dict[str, str]:
    """Return the rendered text of each template. Raises ``helm.HelmError``."""
    options = {"name": name, "namespace": namespace, "kube_version": kube_version}
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(loaded.merge_values(values))
        # The wrapper's own method has no kube_version.
        text = native.call_string("helm_render", loaded._raw(), json.dumps(values), json.dumps(options))
    rendered: dict[str, str] = json.loads(text)
    return rendered


def lint(values: dict[str, Any], *, chart: str = str(CHART)) -> list[str]:
    """Return what Helm's linter has to say beyond information."""
    report = helm.lint(chart, values, strict=True, kube_version=KUBE_VERSION)
    found = [str(one["error"]) for one in report["messages"] if one["severity"] > 1]
    return found + [str(one) for one in report["errors"] or ()]


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    do = {"render": render, "lint": lint}[asked.pop("do")]
    try:
        return {"result": do(**asked)}
    except helm.HelmError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
        sys.stdout.flush()
