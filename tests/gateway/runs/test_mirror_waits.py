"""A run's end waits for the store by a clock of its own, however long each of its writes takes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from searchr1.driver import DriveStats
from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.hand_over import HandOver
from searchr1.gateway.runs.journal import Journal
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.mirror import Mirror
from searchr1.gateway.runs.store.base import RunStore
from searchr1_client.events import KnownEvent, Usage
from tests.gateway.runs.test_live import EVENTS, META
from tests.support.virtual_time import now_s, virtual


class SlowStore:
    """A store whose writes take as long as they are said to."""

    is_shared = True

    def __init__(self, create_s: float, append_s: float, finish_s: float) -> None:
        self._create_s, self._append_s, self._finish_s = create_s, append_s, finish_s

    async def create(self, *_: Any) -> None:
        await asyncio.sleep(self._create_s)

    async def append(self, *_: Any) -> None:
        await asyncio.sleep(self._append_s)

    async def finish(self, *_: Any) -> None:
        await asyncio.sleep(self._finish_s)


class LateDrive:
    """A run that ends after a while."""

    def __init__(self, ends_after_s: float) -> None:
        self._ends_after_s = ends_after_s

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        for event in EVENTS[:-1]:
            yield event
        await asyncio.sleep(self._ends_after_s)
        yield EVENTS[-1]

    def trajectory(self, usage: Usage) -> None:
        return None


@pytest.mark.parametrize("is_journaled", [False, True])
@pytest.mark.parametrize(
    ("create_s", "append_s", "finish_s", "ends_s", "seen_s"),
    [
        (0.0, 0.0, 0.0, 1.0, 1.0),
        (0.0, 0.3, 0.0, 1.0, 1.3),
        (0.35, 0.01, 0.01, 0.3, 0.37),
        (0.0, 0.2, 0.2, 1.0, 1.4),
        (0.0, 0.3, 0.3, 1.0, 1.5),
        (9.0, 0.0, 0.0, 1.0, 1.5),
    ],
)
def test_the_end_is_seen_once_all_is_stored_or_half_a_second_later(
    is_journaled: bool, create_s: float, append_s: float, finish_s: float, ends_s: float, seen_s: float
) -> None:
    @virtual
    async def end_seen_after_s() -> float:
        mirror = Mirror(
            cast(RunStore, SlowStore(create_s, append_s, finish_s)),
            cast(HandOver, None),
            on_worked=lambda: None,
            on_failed=lambda _: None,
            abandon=lambda _: None,
        )
        journal = Journal(DriveStats()) if is_journaled else None
        live = LiveRun(META, cast(RunDrive, LateDrive(ends_s)), leave_s=None, journal=journal, is_shared=True)
        live.kept = True
        start_s = now_s()
        tasks = [asyncio.create_task(live.drive_to_end()), asyncio.create_task(mirror.keep(live))]
        async for batch in live.batches():
            seen = now_s() - start_s, batch[-1].type
        await asyncio.gather(*tasks)
        assert seen[1] == "run.completed"
        return seen[0]

    assert end_seen_after_s() == pytest.approx(seen_s, abs=2e-3)
