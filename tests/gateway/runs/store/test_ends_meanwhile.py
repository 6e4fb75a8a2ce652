"""A run that ends while another replica looks at it, at whichever moment: it is never taken for a damaged one."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, cast

import pytest

from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta, RunState, RunStore
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.stored import StoredRun
from searchr1_client.events import KnownEvent, Run, RunCompleted, RunStarted, Usage

ABOUT = RunMeta("run_1", "research", 1, "m", "Where?", "k:", replica="its-owner")
STARTED = RunStarted(seq=0, run_id=ABOUT.id, turn=0, t_ms=0.0, model="m", question="Where?")
COMPLETED = RunCompleted(seq=1, run_id=ABOUT.id, turn=1, t_ms=1.0, status="completed", usage=Usage())
RECORD = Run(id=ABOUT.id, created=1, model="m", question="Where?", status="completed", usage=Usage())


class EndsMeanwhile:
    """A store whose run ends just before the call number ``at``, from 0 on."""

    def __init__(self, at: int) -> None:
        self.at, self.num_calls, self.store = at, 0, MemoryRunStore(ttl_s=60, max_bytes=2**20)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any) -> Any:
            if self.num_calls == self.at:
                await self.end()
            self.num_calls += 1
            return await getattr(self.store, name)(*args)

        return call

    async def append(self, event: KnownEvent) -> None:
        await self.store.append(ABOUT, [LoggedEvent(event.seq, event.model_dump_json().encode())])

    async def end(self) -> None:
        await self.append(COMPLETED)
        await self.store.finish(RunState(ABOUT, "completed"), RECORD.model_dump_json().encode())

    async def looked_at(self) -> StoredRun:
        """The run, which goes on, as another replica finds it."""
        await self.store.create(ABOUT)
        await self.append(STARTED)
        return StoredRun(RunState(ABOUT), cast(RunStore, self))


@pytest.mark.parametrize("at", range(6))
async def test_the_run_is_as_it_was_or_whole(at: int) -> None:
    store = EndsMeanwhile(at)
    handle = await store.looked_at()
    assert (await handle.run()).status in ("running", "completed")
    await store.end()
    assert (await handle.run()).status == "completed"


@pytest.mark.parametrize("at", range(6))
async def test_its_stream_is_whole(at: int) -> None:
    handle = await EndsMeanwhile(at).looked_at()
    async with aclosing(handle.batches()) as batches:
        events = [event async for batch in batches for event in batch]
    assert events == [STARTED, COMPLETED]
