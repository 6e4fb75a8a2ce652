"""Real Helm, from the wheel of its SDK: renders and lints the chart without a cluster.

As a program, with a values file it prints the manifests, as ``helm template`` does. Without one it answers JSON objects
on standard input, one a line, ``{"do": "render" | "lint", …}``: the SDK is a Go library, which is better kept out of a
process that forks or handles signals.
"""

import json
import sys
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml
from helm_python import _native as native

CHART = Path(__file__).parent / "searchr1"
KUBE_VERSION = "v1.34.0"


def render(
    values: dict[str, Any],
    *,
    name: str = "release",
    namespace: str = "searchr1",
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
    does_lint = asked.pop("do") == "lint"
    try:
        return {"result": lint(**asked) if does_lint else render(**asked)}
    except helm.HelmError as error:
        return {"error": str(error)}


def _template(values: Path) -> str:
    texts = render(yaml.safe_load(values.read_text("utf-8")))
    return "\n---\n".join(text for name, text in texts.items() if name.endswith(".yaml"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(_template(Path(sys.argv[1])))
        sys.exit()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
