"""A run of this process goes on as long as somebody reads it, here or on another replica, and then for a while."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client.events import KnownEvent, RunCompleted, RunStarted, Usage
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
