"""Rules and dashboards: what they ask for is measured, and alerts fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from searchr1.gateway.metrics import Metrics
from searchr1.gateway.replica_metrics import ReplicaMetrics
from searchr1.gateway.seat_metrics import SeatMetrics
from tests.deploy.manifests import CHART, ROOT, load

RULES = CHART / "files" / "rules.yaml"
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
UNIT_TESTS = Path(__file__).parent / "rules_test.yaml"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's prometheus")


def measured() -> set[str]:
    """Return the names of all samples that a gateway's metrics may have."""
    metrics = Metrics()
    SeatMetrics(metrics.registry)
    ReplicaMetrics(metrics.registry)
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {family.name + ending for family in metrics.registry.collect() for ending in endings.get(family.type, ("",))}


def asked(expression: str) -> set[str]:
    """Return the names of our own metrics in an expression; a breaker's label has its metric's name."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"(?<![\w:])searchr1_\w+", bare))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in load(RULES)["groups"] for rule in group["rules"] if "alert" in rule]


def test_every_rule_asks_for_what_is_measured() -> None:
    expressions = [rule["expr"] for group in load(RULES)["groups"] for rule in group["rules"]]
    names = {name for one in expressions for name in asked(one)}
    assert names
    assert names <= measured()


@pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])
def test_every_panel_asks_for_what_is_measured(path: Path) -> None:
    panels = json.loads(path.read_text("utf-8"))["panels"]
    for panel in panels:
        for target in panel["targets"]:
            names = asked(target["expr"])
            assert names, panel["title"]
            assert names <= measured(), panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_leads_to_its_place_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "guides" / "runbook.md").read_text("utf-8")
    entries = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert entries.keys() == {one["alert"] for one in alerts()}
    for one in alerts():
        name = str(one["alert"])
        assert one["annotations"]["runbook_url"] == f"docs/guides/runbook.md#{name.lower()}"
        assert re.match(r"\*\*Means\.\*\* .*\*\*See(\.\*\*|, do\.\*\*) ", entries[name], re.DOTALL), name
        assert re.search(r"\*\*(Do|See, do)\.\*\*", entries[name]), name


def test_the_runbook_asks_for_what_is_measured() -> None:
    runbook = (ROOT / "docs" / "guides" / "runbook.md").read_text("utf-8")
    names = {name for span in re.findall(r"`([^`]+)`", runbook) for name in asked(span)}
    assert len(names) > 10
    assert names <= measured()


def test_every_alert_has_a_unit_test() -> None:
    cases = [case for group in load(UNIT_TESTS)["tests"] for case in group["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {one["alert"] for one in alerts()}


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("path", DASHBOARDS, ids=[path.stem for path in DASHBOARDS])
def test_promtool_takes_every_panel(path: Path, tmp_path: Path) -> None:
    panels = json.loads(path.read_text("utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    plain = [one.replace("$__rate_interval", "5m").replace("$namespace", ".*") for one in expressions]
    rules = [{"record": f"panel:{i}", "expr": one} for i, one in enumerate(plain)]
    file = tmp_path / "panels.yaml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    for path in (RULES, UNIT_TESTS):
        shutil.copy(path, tmp_path)
    command = ["promtool", "test", "rules", UNIT_TESTS.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_takes_the_configuration_beside_compose(tmp_path: Path) -> None:
    for path in (RULES, ROOT / "deploy" / "prometheus" / "prometheus.yaml"):
        shutil.copy(path, tmp_path)
    command = ["promtool", "check", "config", "prometheus.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
