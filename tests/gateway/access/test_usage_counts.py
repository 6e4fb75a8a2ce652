"""The usage of keys: nothing that was counted is lost on its way to the store."""

import asyncio
from collections.abc import Mapping

import pytest

from searchr1.gateway.access import usage_counts
from searchr1.gateway.access.usage_counts import UsageCounts
from searchr1.identity import Caller
from searchr1.keyring.usage import MemoryUsage, Usage
from tests.gateway.conftest import eventually

CALLER = Caller(key_id="k")


class SlowUsage(MemoryUsage):
    """A store that takes its time until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def add(self, usage: Mapping[str, Usage]) -> None:
        """See ``UsageStore``."""
        self.asked.set()
        await self.may_go_on.wait()
        await super().add(usage)


class BuggyUsage(MemoryUsage):
    """A store that breaks once, in a way that nobody expects."""

    num_asked = 0

    async def add(self, usage: Mapping[str, Usage]) -> None:
        """See ``UsageStore``."""
        self.num_asked += 1
        if self.num_asked == 1:
            raise RuntimeError("a bug")
        await super().add(usage)


@pytest.fixture(autouse=True)
def _stores_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_counts, "STORE_EVERY_S", 0.01)


async def test_what_a_cancelled_round_would_have_stored_is_stored_later() -> None:
    store = SlowUsage()
    async with UsageCounts(store) as counts:
        counts.ran(CALLER, tokens_in=3, tokens_out=2, searches=1)
        await store.asked.wait()
        counts.searched(CALLER)
        store.may_go_on.set()  # Leaving cancels the round before it goes on.
    assert await store.read() == {"k": Usage(runs=1, tokens_in=3, tokens_out=2, searches=2)}


async def test_an_unexpected_error_ends_no_storing(caplog: pytest.LogCaptureFixture) -> None:
    store = BuggyUsage()
    async with UsageCounts(store) as counts:
        counts.searched(CALLER)
        await eventually(lambda: store.num_asked > 1)
        assert await store.read() == {"k": Usage(searches=1)}
    assert "met an error of the server's own" in caplog.text
