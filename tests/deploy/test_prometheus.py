"""A real Prometheus scrapes a loaded gateway: panels and alerts find their data, and a burn rate fires and clears."""

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from loadtests.monitoring.prometheus import Prometheus, rules, running_prometheus, shortened
from loadtests.monitoring.stack import Stack, running_stack
from loadtests.monitoring.watch import burn, look_at_alerts, look_at_panels
from tests.gateway.test_metrics_reference import on_the_page

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")
WITHIN_S = 120.0
OF_PROMETHEUS = {"__name__", "instance", "job", "namespace", "le"}


class Watched(NamedTuple):
    """A gateway and the Prometheus that watches it."""

    prometheus: Prometheus
    stack: Stack


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """All of it, running."""
    folder = tmp_path_factory.mktemp("watched")
    with running_stack(folder) as stack, running_prometheus(folder, stack.target) as prometheus:
        yield Watched(prometheus, stack)


def test_an_hour_of_the_rules_is_a_minute() -> None:
    assert [shortened(one) for one in ("30s", "2m", "5m", "1h", "6h")] == ["1s", "2s", "5s", "60s", "360s"]
    [fast] = [
        one for group in rules()["groups"] for one in group["rules"] if one.get("alert") == "SearchR1RunsFailFast"
    ]
    assert fast["for"] == "2s"
    [record] = [
        one for group in rules()["groups"] for one in group["rules"] if one.get("record", "").endswith("rate1h")
    ]
    assert record["expr"].count("[60s]") == 2


@needs_prometheus
@pytest.mark.timeout(300)
def test_every_panel_shows_something(watched: Watched) -> None:
    empty = [one.what for one in look_at_panels(watched.prometheus, WITHIN_S) if not one.has_data]
    assert empty == []


@needs_prometheus
@pytest.mark.timeout(300)
def test_every_alert_is_evaluated_over_series_that_are_there(watched: Watched) -> None:
    assert look_at_panels(watched.prometheus, WITHIN_S)
    assert {one.what.name: one.missing for one in look_at_alerts(watched.prometheus) if one.missing} == {}
    assert watched.prometheus.errors() == {}


@needs_prometheus
@pytest.mark.timeout(300)
def test_series_have_the_labels_of_the_reference(watched: Watched) -> None:
    assert look_at_panels(watched.prometheus, WITHIN_S)
    for row in on_the_page():
        found = watched.prometheus.labels_of(f"{row.name}_bucket" if row.kind == "histogram" else row.name)
        assert found - OF_PROMETHEUS in (set(), set(row.labels)), row.name


@needs_prometheus
@pytest.mark.timeout(600)
def test_a_burn_rate_fires_while_runs_fail_and_clears_after(watched: Watched) -> None:
    seen = burn(watched.prometheus, watched.stack, WITHIN_S)
    assert seen.pending_s <= seen.firing_s <= seen.mended_s <= seen.cleared_s
    assert watched.prometheus.errors() == {}
