"""A run of this process: how long it goes on for its readers, and how long they wait for the store at its end."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from searchr1.driver import DriveStats
from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.journal import Journal
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta
from searchr1_client.events import KnownEvent, RunCompleted, RunStarted, ThinkDelta, Usage
from tests.support.virtual_time import now_s, virtual

META = RunMeta("run_1", "research", 1, "m", "Where?", "k:")
STAMP: dict[str, Any] = {"run_id": "run_1", "turn": 1, "t_ms": 1.0}
COUNTS_S = 3.0
"""How long one message of a reader elsewhere counts."""


class EndlessDrive:
    """A run that starts and then works for ever."""

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        yield RunStarted(seq=0, model="m", question="Where?", **STAMP)
        await asyncio.Event().wait()

    def cancelled(self) -> KnownEvent:
        return RunCompleted(seq=1, status="cancelled", usage=Usage(), **STAMP)


@pytest.mark.parametrize("leave_s", [0.0, 0.5, 1.0, 2.9, 3.0, 10.0])
@pytest.mark.parametrize("messages_at_s", [(), (0.0,), (0.4, 1.4, 2.4), (0.4, 1.9), (0.9, 1.0), (1.2,)])
def test_a_run_ends_when_its_readers_here_have_left_and_none_elsewhere_is_known(
    leave_s: float, messages_at_s: tuple[float, ...]
) -> None:
    """The reader here leaves after a second. Messages count before that as after it, until the run has ended."""
    left_s, ends_s = 1.0, 1.0 + leave_s
    for at_s in messages_at_s:
        if at_s < ends_s:
            ends_s = max(ends_s, at_s + COUNTS_S, at_s + leave_s if at_s >= left_s else 0.0)

    @virtual
    async def ended_after_s() -> float:
        live = LiveRun(META, cast(RunDrive, EndlessDrive()), leave_s=leave_s)
        start_s, loop = now_s(), asyncio.get_running_loop()
        reader = live.frames()
        driving = asyncio.create_task(live.drive_to_end())
        await anext(reader)
        for at_s in messages_at_s:
            loop.call_at(start_s + at_s, live.read_elsewhere)
        await asyncio.sleep(start_s + left_s - now_s())
        await reader.aclose()
        await driving
        return now_s() - start_s

    assert ended_after_s() == pytest.approx(ends_s, abs=1e-3)


END_WITHIN_S = 0.5
"""How long readers wait for a run's end to be stored."""
EVENTS: list[KnownEvent] = [
    RunStarted(seq=0, model="m", question="Where?", **STAMP),
    ThinkDelta(seq=1, text="x", **STAMP),
    RunCompleted(seq=2, status="completed", usage=Usage(), **STAMP),
]


class ShortDrive:
    """A run that ends at once."""

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        for event in EVENTS:
            yield event

    def trajectory(self, usage: Usage) -> None:
        return None


def ended_run(*, is_shared: bool, is_journaled: bool = False, num_past: int = 0) -> LiveRun:
    past = [(event, event.model_dump_json().encode()) for event in EVENTS[:num_past]]
    journal = Journal(DriveStats()) if is_journaled else None
    drive = ShortDrive() if num_past < len(EVENTS) else NothingLeft()
    return LiveRun(META, cast(RunDrive, drive), leave_s=None, journal=journal, past=past, is_shared=is_shared)


class NothingLeft(ShortDrive):
    """A run that was at its end when it was taken over."""

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        return
        yield


async def seen_after_s(live: LiveRun, start_s: float) -> list[float]:
    """When each event was seen."""
    seen: list[float] = []
    async for batch in live.batches():
        seen += [now_s() - start_s] * len(batch)
    return seen


@pytest.mark.parametrize(
    ("is_shared", "stored_after_s", "ends_after_s"),
    [(False, None, 0.0), (True, None, END_WITHIN_S), (True, 0.125, 0.125), (True, 0.75, END_WITHIN_S)],
)
def test_the_end_of_a_shared_run_is_shown_once_it_is_stored_or_takes_too_long(
    is_shared: bool, stored_after_s: float | None, ends_after_s: float
) -> None:
    @virtual
    async def watch() -> tuple[list[float], float, str]:
        live, start_s = ended_run(is_shared=is_shared), now_s()
        if stored_after_s is not None:
            asyncio.get_running_loop().call_later(stored_after_s, live.wait_no_longer)
        driving = asyncio.create_task(live.drive_to_end())
        reading = asyncio.create_task(seen_after_s(live, start_s))
        await driving
        run = await live.run()
        return await reading, now_s() - start_s, run.status

    seen, told_s, status = watch()
    assert seen == [pytest.approx(at_s, abs=1e-3) for at_s in (0.0, 0.0, ends_after_s)]
    assert told_s == pytest.approx(ends_after_s, abs=1e-3)
    assert status == "completed"


def test_a_run_that_may_be_taken_over_shows_what_is_stored_and_its_end_last() -> None:
    @virtual
    async def watch() -> list[float]:
        live, start_s = ended_run(is_shared=True, is_journaled=True), now_s()
        reading = asyncio.create_task(seen_after_s(live, start_s))
        await live.drive_to_end()
        await asyncio.sleep(0.125)
        logged = [LoggedEvent(event.seq, b"") for event in EVENTS]
        live.mark_stored(logged[:1], [])
        await asyncio.sleep(0.125)
        live.mark_stored(logged[1:], [])
        await asyncio.sleep(0.125)
        live.wait_no_longer()
        return await reading

    assert watch() == [pytest.approx(at_s, abs=1e-3) for at_s in (0.125, 0.25, 0.375)]


def test_the_end_that_an_owner_before_logged_is_waited_for_no_longer() -> None:
    @virtual
    async def watch() -> list[float]:
        live, start_s = ended_run(is_shared=True, is_journaled=True, num_past=len(EVENTS)), now_s()
        reading = asyncio.create_task(seen_after_s(live, start_s))
        await live.drive_to_end()
        return await reading

    assert watch() == [pytest.approx(at_s, abs=1e-3) for at_s in (0.0, 0.0, END_WITHIN_S)]


def test_who_was_shown_an_end_sees_no_less_when_a_part_is_stored_after_all() -> None:
    @virtual
    async def watch() -> list[float]:
        live, start_s = ended_run(is_shared=True, is_journaled=True), now_s()
        await live.drive_to_end()
        live.wait_no_longer()
        live.mark_stored([LoggedEvent(0, b"")], [])
        return await seen_after_s(live, start_s)

    assert watch() == [pytest.approx(0.0, abs=1e-3)] * 3


def test_a_store_that_works_again_is_waited_for_again() -> None:
    @virtual
    async def watch() -> list[float]:
        live, start_s = ended_run(is_shared=True), now_s()
        live.wait_no_longer()
        live.mark_stored([], [])
        reading = asyncio.create_task(seen_after_s(live, start_s))
        await live.drive_to_end()
        return await reading

    assert watch()[-1] == pytest.approx(END_WITHIN_S, abs=1e-3)
