"""A run is cut at any point; replayed from its journal, it goes on with the same events, ids and actions."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.driver import DriveEvent, DriveOptions, DriveStats, PassagesReceived, SearchErrored, drive
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.resume import Begun
from searchr1.errors import EngineDrainedError
from searchr1.gateway.runs.events import EventMapper
from searchr1.gateway.runs.journal import Journal, JournalError, read_inputs
from searchr1.gateway.runs.replay import Past, replay
from searchr1.loop.machine import Rollout
from searchr1.loop.types import AnswerDelta, Limits, Passage, ThinkDelta, TokenIds
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.fake import FakeRetriever
from searchr1_client.events import KnownEvent
from tests.engines.deterministic import decode, encode, sampled

TURNS = (
    "<think> I look for 日本橋 🙂. </think>\n<search> who lives in Łódź </search>",
    "no action é at all",
    "<think> naïve 龘 </think>\n<search> what fails </search>",
    "<think> So it is. </think>\n<answer> São Paulo 🙂 </answer>",
)
PASSAGE = Passage("1", '"Łódź"', "São Paulo 🙂 lives there.", None, 0.1 + 0.2)
PROMPT = "Question: who?\n"
UNEQUAL = {"duration_ms", "first_token_ms", "cached_tokens"}
"""What of the cost is not the same: times, and what engines had cached."""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that gives up is asked again at once."""
    monkeypatch.setattr("searchr1.engines.resume._WAITS_S", (0.0,))
    monkeypatch.setattr("searchr1.driver.SHARED_BUDGET.try_spend", lambda: True)


@dataclass
class TurnsEngine:
    """Writes ``TURNS``, one a turn, after whatever of it is in the prompt; ``breaks`` says when it gives up."""

    interval: int = 1
    breaks: Callable[[int], bool] = lambda _: False
    num_chunks: int = field(default=0)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        text = decode(prompt_ids)
        turn = text.count("</information>") + text.count("My previous action is invalid")
        whole = encode(TURNS[turn])
        done = next(n for n in range(len(whole), -1, -1) if list(prompt_ids[len(prompt_ids) - n :]) == whole[:n])
        for chunk in sampled(prompt_ids, whole[done:], params):
            self.num_chunks += 1
            if chunk.finish is None and self.breaks(self.num_chunks):
                raise EngineDrainedError("drained")
            yield chunk


def found(query: str, k: int) -> SearchOutcome:
    return SearchFailed("unavailable", "it is down") if "fails" in query else Found((PASSAGE,), provider="p")


class Gateway:
    """What a gateway does with a run: it drives, maps events, and writes events and inputs."""

    def __init__(self, past: "Gateway | None" = None, *, interval: int = 1, logprobs: bool = False) -> None:
        self.rollout = Rollout(
            prompt=PROMPT, prompt_ids=encode(PROMPT), encode=encode, spell=decode, limits=Limits(max_turns=5)
        )
        self.stats = DriveStats()
        self.options = DriveOptions(session="s", temperature=0.0, stream_interval=interval, logprobs=logprobs)
        self.log: list[KnownEvent] = [] if past is None else list(past.log)
        self.lines: list[bytes] = [] if past is None else list(past.lines)
        mapper: Any = EventMapper(
            run_id="r", model="m", question="q", created=1, rollout=self.rollout, stats=self.stats, prices_usd={}
        )
        self.mapper = mapper
        self.past = Past()
        if past is not None:
            self.past = replay(self.rollout, read_inputs(self.lines), self.log, self.stats)
            self.mapper.take_up(self.log, elapsed_s=1.0)
        self.journal = Journal(self.stats, self.lines, self.past.unwritten)

    def write(self, event: KnownEvent) -> None:
        self.log.append(event)
        new = self.journal.unstored()
        self.journal.mark_stored(new)
        self.lines += new

    def told(self, event: DriveEvent) -> bool:
        """Take a drive event; return whether the client is told of it."""
        if (mapped := self.mapper.map(event)) is None:
            return False
        self.write(mapped)
        return True

    async def run(self, engine: TurnsEngine, at_most: int = 10_000) -> None:
        """Drive until the run's end, or until this gateway has told of ``at_most`` events."""
        for event in self.past.owed:
            at_most -= self.told(event)
        follow, begun = self.journal.follow, self.past.begun
        retriever = FakeRetriever(found)
        driving = drive(self.rollout, engine, retriever, self.options, self.stats, begun=begun, follow=follow)
        async for event in driving:
            if at_most <= 0:
                break
            if not isinstance(event, ThinkDelta | AnswerDelta):
                self.journal.add(event)
            at_most -= self.told(event)
        await driving.aclose()


def facts(log: list[KnownEvent]) -> list[tuple[str, int, str]]:
    """The events without times, and deltas that follow each other as one."""
    merged: list[tuple[str, int, str]] = []
    for event in log:
        rest = event.model_dump(exclude={"seq", "t_ms", "duration_ms", "usage", "turn", "type"})
        text = rest["text"] if event.type in ("think.delta", "answer.delta") else str(rest)
        if merged and event.type.endswith(".delta") and merged[-1][:2] == (event.type, event.turn):
            text = merged.pop()[2] + text
        merged.append((event.type, event.turn, text))
    return merged


def ids(rollout: Rollout) -> list[Any]:
    return [(one.kind, one.turn, one.text, one.ids, one.sampled_ids, one.logprobs) for one in rollout.segments]


async def undisturbed(**options: Any) -> Gateway:
    gateway = Gateway(**options)
    await gateway.run(TurnsEngine())
    return gateway


def assert_same(gateway: Gateway, expected: Gateway) -> None:
    assert [event.seq for event in gateway.log] == list(range(len(gateway.log)))
    assert facts(gateway.log) == facts(expected.log)
    assert ids(gateway.rollout) == ids(expected.rollout)
    assert gateway.rollout.action == expected.rollout.action
    assert gateway.mapper.usage().model_dump(exclude=UNEQUAL) == (expected.mapper.usage().model_dump(exclude=UNEQUAL))
    assert len(gateway.stats.search_s) == len(expected.stats.search_s)


async def test_the_run_of_these_tests_has_everything() -> None:
    expected = await undisturbed()
    kinds = {event.type for event in expected.log}
    assert kinds >= {"think.delta", "search.completed", "search.failed", "action.invalid", "answer.completed"}


@pytest.mark.parametrize("interval", [1, 3, 17])
async def test_a_run_that_is_cut_after_any_event_is_as_an_undisturbed_one(interval: int) -> None:
    expected = await undisturbed(interval=interval, logprobs=True)
    for cut in range(len(expected.log) + 1):
        killed = Gateway(interval=interval, logprobs=True)
        await killed.run(TurnsEngine(), cut)
        other = Gateway(killed, interval=interval, logprobs=True)
        await other.run(TurnsEngine())
        assert_same(other, expected)


@given(
    cuts=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    interval=st.integers(1, 9),
    breaks=st.sets(st.integers(2, 40), max_size=4),
)
@settings(max_examples=80, deadline=None)
async def test_any_number_of_gateways_and_engines_may_die(cuts: list[int], interval: int, breaks: set[int]) -> None:
    expected = await undisturbed()
    gateway = Gateway(interval=interval)
    for cut in cuts:
        await gateway.run(TurnsEngine(breaks=lambda number: number in breaks), cut)
        gateway = Gateway(gateway, interval=interval)
    await gateway.run(TurnsEngine())
    assert_same(gateway, expected)


@pytest.mark.parametrize("num_lines", [1, 3])
async def test_a_log_that_tells_more_than_its_journal_is_refused(num_lines: int) -> None:
    killed = Gateway()
    await killed.run(TurnsEngine(), 12)
    del killed.lines[-num_lines:]
    with pytest.raises(JournalError):
        Gateway(killed)


@pytest.mark.parametrize("spoil", [b"", b"[", b"[0]", b'[0,[["t"]]]', b'[9,[["e","stop",1.0,0]]]', b"\xff"])
async def test_a_damaged_journal_is_refused(spoil: bytes) -> None:
    killed = Gateway()
    await killed.run(TurnsEngine(), 6)
    killed.lines[1:2] = [spoil]
    with pytest.raises(JournalError):
        Gateway(killed)


async def test_a_line_that_was_written_twice_changes_nothing() -> None:
    killed = Gateway()
    await killed.run(TurnsEngine(), 20)
    other = Gateway(killed)
    killed.lines[2:2] = killed.lines[1:2]
    again = Gateway(killed)
    assert again.rollout.action == other.rollout.action
    assert again.past.begun == other.past.begun
    assert isinstance(again.past.begun, Begun | None)


async def test_events_of_which_nobody_was_told_are_owed() -> None:
    killed = Gateway()
    await killed.run(TurnsEngine(), 10_000)
    told = next(i for i, event in enumerate(killed.log) if event.type == "search.completed")
    del killed.log[told:]
    owed = Gateway(killed).past.owed
    assert isinstance(owed[0], PassagesReceived)
    assert any(isinstance(event, SearchErrored) for event in owed)
