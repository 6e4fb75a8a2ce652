"""How often a completion is looked at, and that looking seldom loses nothing."""

import asyncio
from contextlib import ExitStack

import pytest

from searchr1.driver import DriveOptions, drive
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.loop.machine import Rollout
from searchr1.loop.types import AnswerCompleted, ThinkDelta
from searchr1.pacing import UNPACED, Looks, Pacing, may_end
from searchr1.retrieval.base import Found, SearchOutcome
from tests.engines.vllm.fake_vllm import MODEL, serve_fake_vllm

STOPS = ("</search>", "</answer>")


@pytest.mark.parametrize(
    ("num_open", "pause_ms"),
    [(1, 0.0), (2, 0.5), (11, 5.0), (61, 30.0), (62, 30.0), (1000, 30.0)],
)
async def test_the_more_are_open_the_longer_the_pauses_up_to_the_longest(num_open: int, pause_ms: float) -> None:
    pacing = Pacing(0.03)
    with ExitStack() as stack:
        for _ in range(num_open):
            stack.enter_context(pacing.looks(STOPS))
        assert pacing.pause_s() * 1000 == pytest.approx(pause_ms)
    with pacing.looks(STOPS):
        assert pacing.pause_s() == 0


@pytest.mark.parametrize("num_open", [1, 5])
async def test_a_fixed_pause_is_the_same_for_one(num_open: int) -> None:
    pacing = Pacing(0.2, is_fixed=True)
    with ExitStack() as stack:
        for _ in range(num_open):
            stack.enter_context(pacing.looks(STOPS))
        assert pacing.pause_s() == 0.2


class Clock:
    """A loop's clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("searchr1.pacing.asyncio.sleep", clock.sleep)
    monkeypatch.setattr("searchr1.pacing.asyncio.get_running_loop", lambda: clock)
    return clock


async def looked(clock: Clock, looks: Looks, texts: list[str], gap_s: float, at_most_s: float = 9.0) -> list[float]:
    """Look at a stream that gives a text every ``gap_s``; return the pauses."""
    due = clock.now
    for text in texts:
        due += gap_s
        clock.now = max(clock.now, due)
        await looks.pause(text, at_most_s=at_most_s)
    return clock.slept


async def test_the_first_text_is_shown_at_once_and_a_pause_follows_every_later_one(clock: Clock) -> None:
    with Pacing(0.03, is_fixed=True).looks(STOPS) as looks:
        assert await looked(clock, looks, list("abcd"), gap_s=0.001) == [0.03, 0.03, 0.03]


async def test_a_stream_that_is_slower_than_the_pauses_is_not_held_up(clock: Clock) -> None:
    with Pacing(0.03, is_fixed=True).looks(STOPS) as looks:
        assert await looked(clock, looks, list("abcd"), gap_s=0.05) == []


async def test_a_turn_that_may_end_is_not_held_up(clock: Clock) -> None:
    with Pacing(0.03, is_fixed=True).looks(STOPS) as looks:
        assert await looked(clock, looks, ["a", "b <", "/sea", "c"], gap_s=0.001) == [0.03, 0.03]


async def test_no_pause_is_longer_than_the_run_has_time(clock: Clock) -> None:
    with Pacing(0.03, is_fixed=True).looks(STOPS) as looks:
        assert await looked(clock, looks, list("abc"), gap_s=0.001, at_most_s=0.01) == [0.01, 0.01]


async def test_without_pauses_nothing_is_slept(clock: Clock) -> None:
    with UNPACED.looks(STOPS) as looks, UNPACED.looks(STOPS):
        assert await looked(clock, looks, list("abc"), gap_s=0.0) == []


@pytest.mark.parametrize(
    ("text", "may"),
    [("", False), ("so", False), ("<", True), ("so </answer", True), ("a < b, and so on, and so on", False)],
)
def test_an_end_is_expected_where_a_stop_string_may_have_begun(text: str, may: bool) -> None:
    assert may_end(text, STOPS) is may
    assert not may_end(text, ())
    assert not may_end(text, ("",))


class Nothing:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return Found(())


def encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
async def test_fewer_looks_find_the_same_text_and_ids(pause_s: float) -> None:
    words = [f"word{i} " for i in range(40)]
    completion = ["<think> ", *words, "</think> ", "<answer> ", "Bamako ", "</answer>"]
    async with serve_fake_vllm([completion], encode=encode) as fake:
        fake.bytes_per_write, fake.pause_s = 200, 0.002
        async with VllmHttpEngine(fake.url, MODEL) as engine:
            rollout = Rollout(prompt="?", prompt_ids=encode("?"), encode=encode)
            pacing = Pacing(pause_s, is_fixed=True)
            options = DriveOptions(session="s", pacing=pacing)
            async with asyncio.timeout(20):
                events = [event async for event in drive(rollout, engine, Nothing(), options)]
    thoughts = [event.text for event in events if isinstance(event, ThinkDelta)]
    assert "".join(thoughts).split() == [word.strip() for word in words]
    assert [event.text for event in events if isinstance(event, AnswerCompleted)] == ["Bamako"]
    assert rollout.segments[1].ids == tuple(encode("".join(completion)))
    # Each of the writes is looked at, or about a twentieth of them.
    assert len(thoughts) < 15 if pause_s else len(thoughts) > 25
