"""What a soak calls growth, and which outcomes it calls lost."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from loadtests.soak import faults
from loadtests.soak.faults import BUSY, FELT_S, STALLED, Troubles
from loadtests.soak.growth import Sample, growth
from loadtests.soak.tally import Tally

MIB = 2**20


def samples(rss: Sequence[float], files: Sequence[int] | None = None) -> list[Sample]:
    """Quiet samples, a minute apart."""
    files = files or [30] * len(rss)
    return [
        Sample(60.0 * i, round(r * MIB), n, num_redis=9, quiet=True)
        for i, (r, n) in enumerate(zip(rss, files, strict=True))
    ]


def test_memory_that_stays_is_no_growth() -> None:
    found = growth(samples([100, 101, 99, 102, 100, 101, 100, 102, 101, 100, 101]), 0)
    assert not found.is_too_much


def test_memory_that_creeps_up_is_growth() -> None:
    found = growth(samples([100 + i for i in range(11)]), 0)
    assert found.rss_before == 101 * MIB  # The median of minutes 0 to 2.
    assert found.rss_after == 109 * MIB
    assert found.is_too_much


def test_one_outlier_is_no_growth() -> None:
    assert not growth(samples([100] * 20 + [150]), 0).is_too_much


def test_warm_up_is_not_judged() -> None:
    assert not growth(samples([50, 80, 100, 100, 100, 100]), 120).is_too_much


def test_load_is_not_judged() -> None:
    busy = [Sample(60.0 * i + 30, 300 * MIB, 200, num_redis=9, quiet=False) for i in range(9, 11)]
    assert not growth([*samples([100] * 11), *busy], 0).is_too_much


def test_one_more_open_file_is_growth() -> None:
    assert growth(samples([100] * 10, [30] * 8 + [31] * 2), 0).is_too_much
    assert not growth(samples([100] * 10, [30] * 8 + [29] * 2), 0).is_too_much


def test_too_short_a_soak_is_told() -> None:
    with pytest.raises(ValueError, match="not enough quiet moments"):
        growth(samples([100, 100]), 3600)


@pytest.mark.parametrize(
    ("outcome", "in_trouble", "is_lost"),
    [
        ("200 completed", False, False),
        ("503 engine_unavailable", True, False),
        ("503 engine_unavailable", False, True),
        ("500 internal", True, True),
        ("lost: ServerDisconnectedError()", True, True),
    ],
)
def test_only_what_is_documented_for_its_time_is_not_lost(outcome: str, in_trouble: bool, is_lost: bool) -> None:
    tally, now = Tally(Troubles()), time.monotonic()
    if in_trouble:
        tally.troubles.spans.append(("a fault", now - 2, now - 1))
    tally.note("research", outcome, {"200 completed"}, now, now + 1)
    assert bool(tally.lost) == is_lost
    assert f"| research | 1 | {outcome}: 1 |" in tally.table()


def test_a_fault_is_felt_for_a_while() -> None:
    troubles = Troubles([("early", 10.0, 12.0)])
    assert troubles.names_felt(0, 9) == []
    assert troubles.names_felt(0, 10) == ["early"]
    assert troubles.names_felt(12 + FELT_S, 100) == ["early"]
    assert troubles.names_felt(12.1 + FELT_S, 100) == []
    # Runs whose stream stands still hold their slots until their deadline.
    assert Troubles([(STALLED, 10.0, 12.0)]).names_felt(12.1 + FELT_S, 100) == [STALLED]


def test_an_engine_that_is_late_by_itself_is_told_apart_from_one_that_is_stopped() -> None:
    troubles = Troubles([("engine hung", 10.0, 22.0), (BUSY, 12.0, 22.5), (BUSY, 60.0, 63.0)])
    assert troubles.num_busy == 1
    assert troubles.names_felt(64, 65) == [BUSY]


async def test_an_engine_that_answers_late_is_a_trouble_while_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_LATE_S", 0.05)
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: web.BaseRequest) -> web.Response:
        asked.set()
        await may_answer.wait()
        return web.Response()

    server, troubles = RawTestServer(answer), Troubles()
    await server.start_server()
    watching = asyncio.create_task(troubles.watch_engine(str(server.make_url("/health"))))
    await asked.wait()
    while not troubles.spans:  # noqa: ASYNC110 (nobody tells)
        await asyncio.sleep(0.01)
    assert troubles.spans[0][2] == float("inf")
    may_answer.set()
    while troubles.spans[0][2] == float("inf"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await server.close()
