"""Two releases side by side, once, with this checkout as both; and what counts as bad."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from loadtests.faults.reading import Reading
from loadtests.processes import ROOT
from loadtests.releases.__main__ import compare_stored, num_wrong, stop_under_runs
from loadtests.releases.asking import is_whole
from loadtests.releases.stack import running_releases, told_version
from searchr1_client import __version__
from tests.support.redis_server import redis_server_path


def test_ends_that_are_whole_or_told_are_no_failures() -> None:
    assert num_wrong(Counter({"whole": 5, "stopping": 2, "run_lost": 1})) == 0
    assert num_wrong(Counter({"whole": 5, "no end": 2, "internal_error": 1})) == 3


def test_a_run_with_a_gap_or_another_text_is_not_whole() -> None:
    assert is_whole(Reading(text=["a"], end="completed"), "a")
    assert not is_whole(Reading(text=["a"], end="completed", num_gaps=1), "a")
    assert not is_whole(Reading(text=["b"], end="completed"), "a")
    assert not is_whole(Reading(text=["a"]), "a")


def test_a_checkout_tells_its_version() -> None:
    assert told_version(ROOT) == f"searchr1 {__version__}"


@pytest.mark.process
@pytest.mark.redis
@pytest.mark.timeout(240)
@pytest.mark.skipif(redis_server_path() is None, reason="no redis-server")
def test_this_release_beside_itself_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_releases(ROOT, tmp_path, {"SEARCHR1_SHUTDOWN_GRACE_S": "0.2"}, pause_s=0.3) as releases:
        assert asyncio.run(compare_stored(*releases)) == 0
        assert asyncio.run(stop_under_runs(*releases, "kill -9", 2)) == 0
    assert "| old | kill -9 | streams | 2 | 0 | 0 |" in capsys.readouterr().out
