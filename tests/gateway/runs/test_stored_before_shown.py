"""Readers of a run that may be taken over see an event once it is stored, or when the store is slow or fails."""

import asyncio
import json
from typing import Any

import pytest

from searchr1.gateway.runs import live
from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta, RunStoreError
from searchr1.gateway.runs.store.redis import RedisRunStore
from tests.gateway.conftest import Stage, eventually, sse_payloads

pytestmark = pytest.mark.redis
QUESTION = {"question": "Which currency is used in Mali?", "stream": True, "stream_interval_ms": 0}


class Watched:
    """Every ``RedisRunStore``'s ``append``, which can be held up and can fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_stored = self.num_calls = 0
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False
        append = RedisRunStore.append

        async def watched(store: RedisRunStore, meta: RunMeta, events: list[LoggedEvent], inputs: bytes = b"") -> None:
            self.num_calls += 1
            await self.go.wait()
            if self.fails:
                raise RunStoreError("the store does not answer")
            await append(store, meta, events, inputs)
            self.num_stored = max(self.num_stored, events[-1].seq + 1)

        monkeypatch.setattr(RedisRunStore, "append", watched)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def test_no_event_is_shown_before_it_is_stored(pair: tuple[Stage, Stage], watched: Watched) -> None:
    num_shown = 0
    # The first completion ends only once something of it was shown, so that the run can't be stored all at once.
    pair[0].engine.hold = asyncio.Event()
    async with pair[0].client.stream("POST", "/v1/research", json=QUESTION) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                assert json.loads(line[6:])["seq"] == num_shown
                num_shown += 1
                assert num_shown <= watched.num_stored
                pair[0].engine.hold.set()
    assert num_shown == watched.num_stored > 10
    assert watched.num_calls > 1


@pytest.mark.parametrize("fails", [True, False])
async def test_a_store_that_fails_or_is_slow_holds_nobody_up(
    pair: tuple[Stage, Stage], watched: Watched, fails: bool
) -> None:
    watched.fails = fails
    if not fails:
        watched.go.clear()
    response = await pair[0].client.post("/v1/research", json=QUESTION)
    shown: list[dict[str, Any]] = [json.loads(data) for data in sse_payloads(response.text)]
    assert [event["seq"] for event in shown] == list(range(len(shown)))
    assert (shown[-1]["type"], watched.num_stored) == ("run.completed", 0)
    watched.fails = False
    watched.go.set()
    await eventually(lambda: watched.num_stored == len(shown))


async def test_a_request_with_nobody_to_come_back_waits_for_no_store(
    pair: tuple[Stage, Stage], watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody follows up what is not stored; ``test_followed_up_at_once.py`` has what is."""
    monkeypatch.setattr(live, "_END_STORED_WITHIN_S", 3600.0)
    watched.go.clear()
    body = {"question": "Which currency is used in Mali?", "store": False}
    whole = await pair[0].client.post("/v1/research", json=body)
    assert whole.json()["answer"] == "West African CFA franc"
    assert watched.num_stored == 0
    watched.go.set()


@pytest.mark.parametrize("fails", [True, False])
async def test_a_whole_answer_goes_out_without_the_store_and_nothing_is_lost(
    pair: tuple[Stage, Stage], watched: Watched, fails: bool
) -> None:
    watched.fails = fails
    if not fails:
        watched.go.clear()
    one, other = pair
    run = (await one.client.post("/v1/research", json={"question": "Which currency is used in Mali?"})).json()
    assert (run["answer"], watched.num_stored) == ("West African CFA franc", 0)
    watched.fails = False
    watched.go.set()
    path = f"/v1/research/{run['id']}"
    while (found := (await other.client.get(path)).json())["status"] == "running":  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0.01)
    assert (found["status"], found["answer"]) == ("completed", run["answer"])
