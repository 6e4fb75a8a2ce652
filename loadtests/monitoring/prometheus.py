"""A real Prometheus with our rules, whose hours are made minutes, and what it answers."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from loadtests.processes import free_port, running

FILES = Path(__file__).parents[2] / "deploy" / "helm" / "searchr1" / "files"
HOUR_S = 60.0
"""Seconds that an hour of the rules lasts here."""
_RATE_INTERVAL = "30s"
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"^(\d+)([smh])$")


@dataclass(frozen=True)
class Expression:
    """An expression of a panel or an alert, with a name for people."""

    name: str
    expr: str

    @property
    def metrics(self) -> set[str]:
        """The names of our metrics in it; the label of the breaker's metric has its name."""
        bare = re.sub(r'"[^"]*"', '""', self.expr)
        return set(re.findall(r"(?<![\w:])searchr1_\w+", bare))


def shortened(duration: str) -> str:
    """Return a duration of the rules as it is here: ``5m`` becomes ``5s``."""
    found = _DURATION.match(duration)
    assert found is not None, duration
    seconds = int(found[1]) * _UNITS_S[found[2]] * HOUR_S / 3600
    return f"{max(1, round(seconds))}s"


def rules() -> dict[str, Any]:
    """Return the rules of the chart, with short windows and waits."""
    text = (FILES / "rules.yaml").read_text("utf-8")
    text = re.sub(r"\[(\d+[smh])\]", lambda found: f"[{shortened(found[1])}]", text)
    found: dict[str, Any] = yaml.safe_load(text)
    for group in found["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = shortened(rule["for"])
    return found


def alerts() -> list[Expression]:
    """Return every alert of the rules."""
    return [
        Expression(one["alert"], one["expr"]) for group in rules()["groups"] for one in group["rules"] if "alert" in one
    ]


def panels() -> list[Expression]:
    """Return every expression of every panel, with Grafana's variables filled in."""
    found = []
    for path in sorted((FILES / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", _RATE_INTERVAL).replace("$namespace", ".*")
                name = panel["title"] if len(panel["targets"]) == 1 else f"{panel['title']}: {target['legendFormat']}"
                found.append(Expression(name, expr))
    return found


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)

    def query(self, expr: str) -> list[float]:
        """Return the values that an expression has now, one a series. Raises ``httpx.HTTPStatusError``."""
        answer = self._http.get("/api/v1/query", params={"query": expr})
        answer.raise_for_status()
        return [float(one["value"][1]) for one in answer.json()["data"]["result"]]

    def states(self) -> dict[str, str]:
        """Return the alerts that are pending or firing, with their state; firing where an alert is both."""
        found = self._http.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        by_name: dict[str, str] = {}
        for one in sorted(found, key=lambda one: one["state"] == "firing"):
            by_name[one["labels"]["alertname"]] = one["state"]
        return by_name

    def errors(self) -> dict[str, str]:
        """Return what Prometheus says of rules that it could not evaluate, and of a target that it could not scrape."""
        groups = self._http.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
        found = {
            rule["name"]: rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")
        }
        targets = self._http.get("/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
        return found | {one["scrapeUrl"]: one["lastError"] for one in targets if one["lastError"]}

    def labels_of(self, metric: str) -> set[str]:
        """Return the names of the labels that a metric's series have."""
        answer = self._http.get("/api/v1/series", params={"match[]": metric}).raise_for_status()
        return {label for one in answer.json()["data"] for label in one}

    def close(self) -> None:
        """Close the connections to it."""
        self._http.close()


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run Prometheus in ``folder`` until the block ends; it scrapes ``target``, a host and port, every second."""
    program = shutil.which("prometheus")
    assert program is not None, "there is no prometheus on the PATH"
    scrape = {"job_name": "searchr1", "static_configs": [{"targets": [target], "labels": {"namespace": "here"}}]}
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config = {"global": every, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules()), "utf-8")
    port = free_port()
    command = [
        *(program, f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with running(command, port, ready="/-/ready", log=folder / "prometheus.log", timeout_s=60) as server:
        prometheus = Prometheus(server.url)
        try:
            yield prometheus
        finally:
            prometheus.close()
