"""The manifests for those without Helm: what kustomize builds is what the chart makes."""

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import CHART, ROOT, Helm, Object, by_key, check_by_kubernetes, load

OVERLAYS = {"cpu-demo": "laptop", "single-gpu": "one-gpu", "production": "production"}
"""Overlays, each with the example of the chart that it equals."""
OF_HELM = ("app.kubernetes.io/managed-by", "helm.sh/chart")

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None and shutil.which("kustomize") is None, reason="needs kubectl or kustomize"
)


def build(overlay: str) -> list[Object]:
    """Return what kustomize makes of an overlay."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    done = subprocess.run(
        [*command, str(ROOT / "k8s" / "overlays" / overlay)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def comparable(value: Any) -> Any:
    """Return ``value`` without Helm's labels; named things and rules, whose order means nothing, sorted."""
    if isinstance(value, dict):
        return {name: comparable(one) for name, one in value.items() if name not in OF_HELM}
    if not isinstance(value, list):
        return value
    found = [comparable(one) for one in value]
    orderless = all(isinstance(one, dict) and {"name", "to", "ports", "mountPath"} & one.keys() for one in found)
    return sorted(found, key=lambda one: yaml.safe_dump(one)) if orderless else found


@pytest.mark.parametrize(("overlay", "example"), OVERLAYS.items(), ids=OVERLAYS)
def test_an_overlay_is_what_the_chart_makes(helm: Helm, overlay: str, example: str) -> None:
    values = load(CHART / "examples" / f"{example}.yaml") | {"fullnameOverride": "searchr1"}
    chart = by_key(helm.render(values, name="searchr1", namespace="searchr1"))
    built = by_key(build(overlay))
    assert chart.keys() - built.keys() == {"Pod/searchr1-test"}
    assert built.keys() - chart.keys() == {"Namespace/searchr1"}
    for name in sorted(built.keys() & chart.keys()):
        assert comparable(built[name]) == comparable(chart[name]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_kubernetes_takes(overlay: str) -> None:
    check_by_kubernetes(build(overlay), "1.34")


def test_variables_that_are_expanded_come_after_what_they_name() -> None:
    # Kubernetes leaves $(NAME) as it stands where NAME follows it.
    [gateway] = [
        one for one in build("single-gpu") if one["kind"] == "Deployment" and "retriever" not in one["metadata"]["name"]
    ]
    names = [one["name"] for one in gateway["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert names.index("VALKEY_PASSWORD") < names.index("SEARCHR1_REDIS_URL")


def test_the_namespace_enforces_the_restricted_standard() -> None:
    namespace = by_key(build("production"))["Namespace/searchr1"]
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
