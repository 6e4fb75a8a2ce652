"""The driver over a scripted engine: order of events, failures, deadlines, and what closing leaves running."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from searchr1.driver import (
    DriveEvent,
    DriveOptions,
    DriveStats,
    EngineErrored,
    PassagesReceived,
    SearchErrored,
    drive,
)
from searchr1.engines.base import Chunk, Engine, SamplingParams
from searchr1.engines.resume import Begun
from searchr1.engines.scripted import Hang, ScriptedEngine, Step
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import (
    ActionInvalid,
    AnswerCompleted,
    AnswerDelta,
    Finished,
    FinishReason,
    Limits,
    LoopEvent,
    Passage,
    SearchRequested,
    Status,
    ThinkDelta,
    TokenIds,
)
from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.fake import FakeRetriever
from tests.loop.scripts import encode, joined, new_rollout
from tests.support.virtual_time import virtual

SEARCH = "<think> t </think> <search> Mali </search>"
ANSWER = "<think> u </think> <answer> Bamako </answer>"
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
OPTIONS = DriveOptions(session="s")
SOON_S = 0.05


def scripted(*completions: str | Sequence[Step]) -> ScriptedEngine:
    return ScriptedEngine(completions, encode=encode)


def finder() -> FakeRetriever:
    return FakeRetriever({"Mali": (MALI,)})


def loop_events(events: Sequence[DriveEvent]) -> list[LoopEvent]:
    return [e for e in events if not isinstance(e, PassagesReceived | SearchErrored | EngineErrored)]


async def run(
    rollout: Rollout,
    engine: Engine,
    retriever: Retriever | None = None,
    options: DriveOptions = OPTIONS,
    stats: DriveStats | None = None,
) -> list[DriveEvent]:
    return [event async for event in drive(rollout, engine, retriever or finder(), options, stats)]


@dataclass
class StreamEngine:
    """Gives ``chunks`` at every request, never waiting, and knows when its iterator was closed."""

    chunks: Sequence[Chunk]
    num_given: int = 0
    num_closed: int = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Give the chunks."""
        try:
            for chunk in self.chunks:
                self.num_given += 1
                yield chunk
        finally:
            self.num_closed += 1


@dataclass
class HangingRetriever:
    """Never answers by itself; keeps the deadlines that it was given."""

    deadlines_s: list[float] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    num_cancelled: int = 0

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Hang."""
        self.deadlines_s.append(deadline_s)
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        raise AssertionError


async def test_the_order_of_events() -> None:
    engine, stats = scripted(["<think> ", "t </think> <sea", "rch> Mali </search>"], ANSWER), DriveStats()
    events = await run(new_rollout(), engine, stats=stats)
    found = events[2]
    assert isinstance(found, PassagesReceived)
    assert events == [
        ThinkDelta(1, "t"),
        SearchRequested(1, "Mali"),
        PassagesReceived(1, "Mali", (MALI,), "miss", found.duration_s, found.prefetched_s),
        ThinkDelta(2, "u"),
        AnswerDelta(2, "Bamako"),
        AnswerCompleted(2, "Bamako"),
        Finished(2, Status.COMPLETED),
    ]
    assert (len(stats.completion_s), stats.search_s) == (2, [found.duration_s])
    assert stats.prefetched_s == [found.prefetched_s]
    assert engine.num_running == 0


async def test_what_the_engine_is_asked() -> None:
    engine, rollout = scripted(SEARCH, ANSWER), new_rollout(Limits(max_completion_tokens=70))
    await run(rollout, engine, options=DriveOptions("abc", temperature=0.5, top_p=0.9, seed=3))
    params = SamplingParams(max_tokens=70, stop=("</search>", "</answer>"), temperature=0.5, top_p=0.9, seed=3)
    ids = rollout.ids[: -len(rollout.segments[-1].ids)]
    assert engine.requests == [(rollout.segments[0].ids, params, "abc", 0), (ids, params, "abc", 0)]


async def test_later_turns_may_run_first() -> None:
    engine = scripted(SEARCH, ANSWER)
    await run(new_rollout(), engine, options=DriveOptions("s", priority_by_turn=True))
    assert [priority for _, _, _, priority in engine.requests] == [-1, -2]


@pytest.mark.parametrize("outcome", [SearchFailed("unavailable", "it is down"), SearchFailed("timeout", "too late")])
async def test_a_search_that_fails_is_told_and_reads_as_an_empty_result(outcome: SearchFailed) -> None:
    rollout = new_rollout()
    events = await run(rollout, scripted(SEARCH, ANSWER), FakeRetriever(lambda query, k: outcome))
    broke = events[2]
    assert isinstance(broke, SearchErrored)
    assert (broke.turn, broke.query, broke.kind, broke.message) == (1, "Mali", outcome.kind, outcome.message)
    assert rollout.segments[2].text == "\n\n<information></information>\n\n"
    assert events[-1] == Finished(2, Status.COMPLETED)


async def test_no_more_passages_than_asked_for() -> None:
    @dataclass
    class Generous:
        async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
            return Found((MALI,) * 9, "hit")

    rollout = new_rollout()
    events = await run(rollout, scripted(SEARCH, ANSWER), Generous(), DriveOptions("s", top_k=2))
    assert [(len(e.passages), e.cache) for e in events if isinstance(e, PassagesReceived)] == [(2, "hit")]
    assert "Doc 2(" in rollout.segments[2].text
    assert "Doc 3(" not in rollout.segments[2].text


@pytest.mark.parametrize("error", [EngineUnavailableError("gone"), EngineOverloadedError("full"), EngineError("bad")])
async def test_an_engine_that_fails_ends_the_rollout(error: EngineError) -> None:
    rollout = new_rollout()
    events = await run(rollout, scripted(SEARCH, ["<think> half", error]))
    assert events[-3:] == [ThinkDelta(2, "half"), EngineErrored(2, error), Finished(2, Status.FAILED)]
    assert rollout.segments[-1].text == "<think> half"


@pytest.mark.parametrize("last", [(Chunk("", (), "abort"),), ()], ids=["aborted", "without an end"])
async def test_a_torn_completion_is_no_turn(last: tuple[Chunk, ...]) -> None:
    rollout = new_rollout()
    events = await run(rollout, StreamEngine((Chunk("<think> half", (1,)), *last)))
    broke = events[1]
    assert isinstance(broke, EngineErrored)
    assert type(broke.error) is EngineUnavailableError
    assert events[2:] == [Finished(1, Status.FAILED)]
    assert [s.kind for s in rollout.segments] == ["prompt", "completion"]


async def test_a_completion_that_was_whole_when_the_engine_aborted_counts() -> None:
    events = await run(new_rollout(), StreamEngine((Chunk(ANSWER, (1,), "abort"),)))
    assert events[-1] == Finished(1, Status.COMPLETED)


async def test_an_engine_that_ignores_stop_strings_is_stopped() -> None:
    engine = scripted([SEARCH + " and so on", Hang.FOREVER], [ANSWER, Hang.FOREVER])
    rollout = new_rollout()
    events = await run(rollout, engine)
    assert events[-1] == Finished(2, Status.COMPLETED)
    assert [s.text for s in rollout.segments if s.sampled] == [SEARCH, ANSWER]
    assert engine.num_running == 0


async def test_nothing_is_read_past_the_end_of_a_completion() -> None:
    engine = StreamEngine((Chunk("<answer> a", (1,)), Chunk(" </answer>", (2,), "stop"), Chunk("more", (3,))))
    await run(new_rollout(), engine)
    assert (engine.num_given, engine.num_closed) == (2, 1)


async def test_cached_tokens_are_summed() -> None:
    stats = DriveStats()
    engine = StreamEngine((Chunk("hm", (1,), "stop", num_cached_tokens=32),))
    await run(new_rollout(Limits(max_turns=2)), engine, stats=stats)
    assert stats.num_cached_tokens == 96


@pytest.mark.parametrize(("reason", "status"), [("length", Status.TRUNCATED), ("stop", Status.EXHAUSTED)])
async def test_a_token_budget_truncates(reason: FinishReason, status: Status) -> None:
    engine = StreamEngine((Chunk("hm", (1, 2, 3), reason),))
    events = await run(new_rollout(Limits(max_turns=0, max_run_tokens=3)), engine)
    assert events[-1] == Finished(1, status)


async def test_a_token_budget_ends_the_rollout_between_turns() -> None:
    engine = StreamEngine((Chunk("hm", (1, 2, 3), "length"),))
    events = await run(new_rollout(Limits(max_run_tokens=6)), engine)
    assert events[-1] == Finished(2, Status.TRUNCATED)


async def test_closed_book_is_one_completion_and_no_search() -> None:
    engine, retriever = scripted(SEARCH), finder()
    events = await run(new_rollout(Limits(max_searches=0)), engine, retriever)
    assert events[-2:] == [ActionInvalid(1, "search_off"), Finished(1, Status.EXHAUSTED)]
    assert (len(engine.requests), retriever.queries) == (1, [])


@virtual
async def test_the_deadline_passes_in_the_engine() -> None:
    engine, rollout = scripted(["<think> half", Hang.FOREVER]), new_rollout()
    events = await run(rollout, engine, options=DriveOptions("s", deadline_s=SOON_S))
    assert events == [ThinkDelta(1, "half"), Finished(1, Status.DEADLINE)]
    assert rollout.segments[-1].text == "<think> half"
    assert engine.num_running == 0


@virtual
async def test_the_deadline_passes_in_a_search() -> None:
    retriever = HangingRetriever()
    events = await run(new_rollout(), scripted(SEARCH), retriever, DriveOptions("s", deadline_s=SOON_S))
    assert events[-1] == Finished(1, Status.DEADLINE)
    assert retriever.num_cancelled == 1


@virtual
async def test_a_search_is_given_no_more_time_than_the_run_has() -> None:
    retriever = HangingRetriever()
    await run(new_rollout(), scripted(SEARCH), retriever, DriveOptions("s", search_timeout_s=99, deadline_s=SOON_S))
    assert 0 < retriever.deadlines_s[0] <= SOON_S


@virtual
async def test_a_search_has_its_own_timeout() -> None:
    slow = FakeRetriever({"Mali": (MALI,)}, delay_s=99)
    events = await run(new_rollout(), scripted(SEARCH, ANSWER), slow, DriveOptions("s", search_timeout_s=0.01))
    assert [event.kind for event in events if isinstance(event, SearchErrored)] == ["timeout"]
    assert events[-1] == Finished(2, Status.COMPLETED)


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_deadline_that_has_passed_stops_an_engine_that_never_waits(deadline_s: float) -> None:
    engine = StreamEngine((Chunk(ANSWER, (1,), "stop"),))
    events = await run(new_rollout(), engine, options=DriveOptions("s", deadline_s=deadline_s))
    assert events == [Finished(1, Status.DEADLINE)]
    assert engine.num_given == 0


@virtual
async def test_what_another_process_sampled_counts_though_its_turn_never_comes() -> None:
    rollout = new_rollout()
    rollout.receive_text("<think> t")
    driving = drive(
        rollout, scripted(SEARCH), finder(), DriveOptions("s", deadline_s=0.0), begun=Begun("<think> t", (1, 2, 3))
    )
    events = [event async for event in driving]
    assert isinstance(events[-1], Finished)
    assert (rollout.status, rollout.num_sampled_tokens) == (Status.DEADLINE, 3)


async def test_a_slow_reader_is_not_cancelled_by_the_deadline() -> None:
    events: list[DriveEvent] = []
    async for event in drive(new_rollout(), scripted(SEARCH), finder(), DriveOptions("s", deadline_s=SOON_S)):
        events.append(event)
        await asyncio.sleep(2 * SOON_S)
    assert events[-1] == Finished(1, Status.DEADLINE)


async def test_an_error_of_time_that_is_not_the_deadline_s_is_not_taken_for_it() -> None:
    @dataclass
    class Buggy:
        async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
            raise TimeoutError("a bug")

    with pytest.raises(TimeoutError, match="a bug"):
        await run(new_rollout(), scripted(SEARCH), Buggy(), DriveOptions("s", deadline_s=60))


async def test_closing_early_closes_the_engine_s_iterator() -> None:
    engine = scripted(["<think> half", Hang.FOREVER])
    async with aclosing(drive(new_rollout(), engine, finder(), OPTIONS)) as events:
        assert await anext(events) == ThinkDelta(1, "half")
        assert engine.num_running == 1
    assert engine.num_running == 0


@pytest.mark.parametrize("deadline_s", [None, 60.0])
async def test_cancelling_the_reader_closes_the_engine_s_iterator(deadline_s: float | None) -> None:
    engine, rollout = scripted(["<think> half", Hang.FOREVER]), new_rollout()
    started = asyncio.Event()

    async def read() -> None:
        async with aclosing(drive(rollout, engine, finder(), DriveOptions("s", deadline_s=deadline_s))) as events:
            async for _ in events:
                started.set()

    task = asyncio.create_task(read())
    await started.wait()
    assert engine.num_running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.num_running == 0
    assert rollout.status is None


async def test_cancelling_the_reader_cancels_the_search() -> None:
    retriever = HangingRetriever()
    task = asyncio.create_task(run(new_rollout(), scripted(SEARCH), retriever))
    await retriever.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert retriever.num_cancelled == 1


async def test_a_bug_is_not_hidden() -> None:
    @dataclass
    class Broken:
        async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run(new_rollout(), scripted(SEARCH), Broken())


async def test_many_rollouts_share_an_engine_and_a_retriever() -> None:
    engine, retriever = StreamEngine((Chunk(ANSWER, (1,), "stop"),)), finder()
    runs = await asyncio.gather(*(run(new_rollout(), engine, retriever, DriveOptions(str(i))) for i in range(20)))
    assert all(events == runs[0] for events in runs)


async def test_the_engine_s_chunking_changes_nothing() -> None:
    whole, torn = new_rollout(), new_rollout()
    one = await run(whole, scripted(SEARCH, ANSWER))
    other = await run(torn, scripted(list(SEARCH), list(ANSWER)))
    assert joined(loop_events(other)) == joined(loop_events(one))
    assert torn.ids == whole.ids
    assert torn.loss_mask == whole.loss_mask
