"""Prefetch: a search leaves when its query is settled, is used if it is asked for, and is never left behind."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.driver import DriveEvent, DriveOptions, DriveStats, PassagesReceived, SearchErrored, drive
from searchr1.engines.scripted import Hang, ScriptedEngine, Step
from searchr1.errors import EngineUnavailableError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Finished, Limits, LoopEvent, Passage, QuerySettled, SearchRequested, Status, ThinkDelta
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from tests.loop.scripts import all_limits, chunkings, encode, model_texts, new_rollout, play
from tests.support.virtual_time import virtual

ANSWER = "<answer> Bamako </answer>"
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
OPEN = "<search> Mali </search"
OPTIONS = DriveOptions("s")


@dataclass
class WatchedRetriever:
    """Answers once ``answer`` is set, and knows every search that is under way or was cancelled."""

    outcome: SearchOutcome | Exception = field(default_factory=lambda: Found((MALI,)))
    answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    queries: list[str] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    num_running: int = 0
    num_cancelled: int = 0

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Wait, then answer."""
        self.queries.append(query)
        self.deadlines_s.append(deadline_s)
        self.num_running += 1
        self.asked.set()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_running -= 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def quick(outcome: SearchOutcome | Exception | None = None) -> WatchedRetriever:
    retriever = WatchedRetriever(outcome or Found((MALI,)))
    retriever.answer.set()
    return retriever


def scripted(*completions: str | Sequence[Step]) -> ScriptedEngine:
    return ScriptedEngine(completions, encode=encode)


async def run(
    engine: ScriptedEngine,
    retriever: WatchedRetriever,
    options: DriveOptions = OPTIONS,
    stats: DriveStats | None = None,
    rollout: Rollout | None = None,
) -> list[DriveEvent]:
    return [event async for event in drive(rollout or new_rollout(), engine, retriever, options, stats)]


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    assert [task for task in asyncio.all_tasks() if "_timed" in repr(task.get_coro())] == []


async def test_a_search_leaves_while_the_engine_still_writes() -> None:
    retriever, stats = quick(), DriveStats()
    engine = scripted([OPEN, Hang.FOREVER])
    reading = asyncio.create_task(run(engine, retriever, stats=stats))
    await retriever.asked.wait()
    assert engine.num_running == 1
    assert retriever.queries == ["Mali"]
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_prefetched_search_is_not_sent_again_and_its_lead_is_told() -> None:
    retriever, stats = quick(), DriveStats()
    events = await run(scripted([OPEN, "", "", ">"], ANSWER), retriever, stats=stats)
    (received,) = [event for event in events if isinstance(event, PassagesReceived)]
    assert retriever.queries == ["Mali"]
    assert received.passages == (MALI,)
    assert 0 < received.prefetched_s <= received.duration_s
    assert (stats.search_s, stats.prefetched_s) == ([received.duration_s], [received.prefetched_s])
    assert retriever.num_cancelled == 0


async def test_no_more_is_saved_than_the_search_took() -> None:
    retriever = WatchedRetriever()

    async def finish_late() -> None:
        await retriever.asked.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        retriever.answer.set()

    finishing = asyncio.create_task(finish_late())
    events = await run(scripted([OPEN, ">"], ANSWER), retriever)
    await finishing
    (received,) = [event for event in events if isinstance(event, PassagesReceived)]
    assert received.prefetched_s < received.duration_s


async def test_a_search_inside_an_answer_is_sent_when_it_is_asked_for() -> None:
    stats, retriever = DriveStats(), quick()
    events = await run(scripted("<answer> a <search> b </search>", ANSWER), retriever, stats=stats)
    assert retriever.queries == ["b"]
    assert stats.prefetched_s == [0.0]
    assert events[-1] == Finished(2, Status.COMPLETED)


async def test_a_query_that_goes_on_is_searched_anew() -> None:
    retriever, stats = WatchedRetriever(), DriveStats()
    reading = asyncio.create_task(run(scripted([OPEN, "ing", " </search>"], ANSWER), retriever, stats=stats))
    for _ in range(100):  # Far more steps of the event loop than the two turns take.
        await asyncio.sleep(0)
    assert (retriever.queries, retriever.num_cancelled) == (["Mali", "Mali </searching"], 1)
    retriever.answer.set()
    events = await reading
    assert SearchRequested(1, "Mali </searching") in events
    assert (len(stats.search_s), stats.prefetched_s, retriever.num_cancelled) == (1, [0.0], 1)


@pytest.mark.parametrize("rest", ["", "ing", " but no"], ids=["cut", "other tag", "text"])
async def test_a_turn_without_a_search_drops_it(rest: str) -> None:
    retriever, stats = WatchedRetriever(), DriveStats()
    events = await run(scripted([OPEN, rest], ANSWER), retriever, stats=stats)
    assert (retriever.num_cancelled, retriever.num_running) == (1, 0)
    assert (stats.search_s, retriever.queries) == ([], ["Mali"])
    assert events[-1] == Finished(2, Status.COMPLETED)


async def test_a_spent_budget_drops_it() -> None:
    retriever = WatchedRetriever()
    rollout = new_rollout(Limits(max_run_tokens=1))
    events = await run(scripted([OPEN, ">"]), retriever, rollout=rollout)
    assert events[-1] == Finished(1, Status.TRUNCATED)
    assert retriever.num_running == 0


@pytest.mark.parametrize("limits", [Limits(max_turns=0), Limits(max_searches=0)])
async def test_nothing_is_sent_with_search_off(limits: Limits) -> None:
    retriever = quick()
    await run(scripted([OPEN, ">"]), retriever, rollout=new_rollout(limits))
    assert retriever.queries == []


async def test_an_engine_that_fails_drops_it_before_the_run_ends() -> None:
    retriever = WatchedRetriever()
    engine = scripted([OPEN, "", "", EngineUnavailableError("gone")])
    async for event in drive(new_rollout(), engine, retriever, OPTIONS):
        if isinstance(event, Finished):
            assert event.status is Status.FAILED
            assert (retriever.num_cancelled, retriever.num_running) == (1, 0)


@virtual
async def test_the_deadline_in_the_engine_drops_it() -> None:
    retriever = WatchedRetriever()
    events = await run(scripted([OPEN, Hang.FOREVER]), retriever, DriveOptions("s", deadline_s=0.05))
    assert events[-1] == Finished(1, Status.DEADLINE)
    assert (retriever.num_cancelled, retriever.num_running) == (1, 0)


@virtual
async def test_the_deadline_in_a_prefetched_search_ends_it() -> None:
    retriever, stats = WatchedRetriever(), DriveStats()
    events = await run(scripted([OPEN, ">"]), retriever, DriveOptions("s", deadline_s=0.05), stats)
    assert events[-1] == Finished(1, Status.DEADLINE)
    assert (retriever.num_cancelled, retriever.num_running, retriever.queries) == (1, 0, ["Mali"])


@virtual
async def test_a_slow_reader_s_prefetch_is_dropped_at_the_deadline() -> None:
    retriever = WatchedRetriever()
    events: list[DriveEvent] = []
    async for event in drive(new_rollout(), scripted([OPEN, ">"]), retriever, DriveOptions("s", deadline_s=0.05)):
        events.append(event)
        await asyncio.sleep(0.1)
    assert events == [SearchRequested(1, "Mali"), Finished(1, Status.DEADLINE)]
    assert (retriever.num_cancelled, retriever.num_running) == (1, 0)


async def test_its_time_counts_from_when_it_was_sent() -> None:
    retriever = quick()
    await run(scripted([OPEN, ">"], ANSWER), retriever, DriveOptions("s", search_timeout_s=7, deadline_s=60))
    await run(scripted([OPEN, ">"], ANSWER), retriever, DriveOptions("s", search_timeout_s=70, deadline_s=60))
    assert retriever.deadlines_s[0] == 7
    assert 0 < retriever.deadlines_s[1] <= 60


async def test_closing_the_events_drops_it() -> None:
    retriever = WatchedRetriever()
    engine = scripted(["<think> t </think>" + OPEN, "", "", Hang.FOREVER])
    async with aclosing(drive(new_rollout(), engine, retriever, OPTIONS)) as events:
        assert await anext(events) == ThinkDelta(1, "t")
        waiting = asyncio.ensure_future(anext(events))
        await retriever.asked.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert (retriever.num_cancelled, retriever.num_running, engine.num_running) == (1, 0, 0)


async def test_closing_between_two_events_drops_it() -> None:
    retriever = WatchedRetriever()
    async with aclosing(drive(new_rollout(), scripted([OPEN, ">"]), retriever, OPTIONS)) as events:
        assert await anext(events) == SearchRequested(1, "Mali")
        assert retriever.num_running == 1
    assert (retriever.num_cancelled, retriever.num_running) == (1, 0)


async def test_a_failed_prefetch_is_told_as_any_other() -> None:
    failed = SearchFailed("rate_limited", "slow down", provider="p")
    events = await run(scripted([OPEN, ">"], ANSWER), quick(failed))
    (broke,) = [event for event in events if isinstance(event, SearchErrored)]
    assert (broke.kind, broke.query, broke.provider) == ("rate_limited", "Mali", "p")
    assert 0 <= broke.prefetched_s <= broke.duration_s


async def test_a_bug_in_a_search_that_was_asked_for_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError):
        await run(scripted([OPEN, ">"], ANSWER), quick(ZeroDivisionError()))
    assert caplog.records == []


async def test_a_bug_in_a_search_that_was_not_asked_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        events = await run(scripted([OPEN, "", "ing"], ANSWER), quick(ZeroDivisionError()))
    assert events[-1] == Finished(2, Status.COMPLETED)
    assert ["prefetched" in record.message for record in caplog.records] == [True]


def within(some: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether ``some`` are among ``others``, in this order."""
    left = iter(others)
    return all(query in left for query in some)


def queries_that_may_leave(events: Sequence[LoopEvent]) -> list[str]:
    """Each turn's settled query, and the one asked for if it is another."""
    sent: list[tuple[int, str]] = []
    for event in events:
        if isinstance(event, QuerySettled | SearchRequested) and (event.turn, event.query) not in sent:
            sent.append((event.turn, event.query))
    return [query for _, query in sent]


@given(st.data(), all_limits(), st.lists(model_texts(), min_size=6, max_size=6))
def test_prefetching_changes_no_query_and_no_rollout(data: st.DataObject, limits: Limits, texts: list[str]) -> None:
    played = play(new_rollout(limits), [[text] for text in texts], [[MALI]] * 6)
    retriever, stats, rollout = quick(), DriveStats(), new_rollout(limits)
    pieces: list[list[Step]] = [list(data.draw(chunkings(text))) for text in texts]

    async def driven() -> list[DriveEvent]:
        events = await run(scripted(*pieces), retriever, DriveOptions("s"), stats, rollout)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return events

    events = asyncio.run(driven())
    asked = [event.query for event in events if isinstance(event, SearchRequested)]
    if limits.max_run_tokens is None:  # The scripted engine samples fewer ids than one per character.
        texts_of = [[(s.kind, s.text) for s in r.segments] for r in (rollout, played.rollout)]
        assert texts_of[0] == texts_of[1]
    assert not any(isinstance(event, QuerySettled) for event in events)
    assert [event.query for event in events if isinstance(event, PassagesReceived)] == asked
    assert within(asked, retriever.queries)
    if limits.max_run_tokens is None:
        assert within(retriever.queries, queries_that_may_leave(played.events))
    assert len(stats.prefetched_s) == len(stats.search_s) == len(asked)
