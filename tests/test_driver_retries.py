"""What the driver asks an engine for again, and what it does not."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest

from searchr1.driver import DriveOptions, DriveStats, drive_to_end
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.retry_budget import RetryBudget
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Status, TokenIds
from searchr1.retrieval.base import Found, SearchOutcome

SEARCH, ANSWER = "<search> Mali </search>", "<answer> Bamako </answer>"
GONE = EngineUnavailableError("reset", passing=True)
BUSY = EngineOverloadedError("full")


class FaultyEngine:
    """Plays one step a request: a text, or an error; a pair is a text, cut in two by an error."""

    def __init__(self, *steps: str | EngineError | tuple[str, EngineError]) -> None:
        self.steps = iter(steps)
        self.prompts: list[TokenIds] = []
        self.num_open = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        self.prompts.append(prompt_ids)
        step = next(self.steps)
        text, error = step if isinstance(step, tuple) else ("", step) if isinstance(step, EngineError) else (step, None)
        self.num_open += 1
        try:
            if text:
                yield Chunk(text, tuple(text.encode()), None if error else "stop")
            if error is not None:
                raise error
        finally:
            self.num_open -= 1


class Nothing:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return Found(())


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of other tests count for nothing."""
    monkeypatch.setattr("searchr1.driver.SHARED_BUDGET", RetryBudget())


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits before retries, which pass at once."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        noted.append(seconds)
        await sleep(0)

    monkeypatch.setattr("searchr1.engines.resume.asyncio.sleep", note)
    return noted


def rollout() -> Rollout:
    def encode(text: str) -> list[int]:
        return list(text.encode())

    return Rollout(prompt="?", prompt_ids=encode("?"), encode=encode)


async def drive(
    engine: FaultyEngine, deadline_s: float | None = 600.0
) -> tuple[Rollout, EngineError | None, DriveStats]:
    started, stats = rollout(), DriveStats()
    options = DriveOptions(session="s", deadline_s=deadline_s)
    result = await drive_to_end(started, engine, Nothing(), options, stats)
    assert engine.num_open == 0
    return started, result.engine_error, stats


@pytest.mark.parametrize("deadline_s", [600.0, None])
@pytest.mark.parametrize("num_faults", [1, 2, 4])
@pytest.mark.parametrize("fault", [GONE, BUSY, EngineOverloadedError("full", retry_after_s=1.0)])
async def test_a_turn_that_was_refused_for_the_moment_is_asked_for_again(
    waits: list[float], fault: EngineError, num_faults: int, deadline_s: float | None
) -> None:
    engine = FaultyEngine(SEARCH, *[fault] * num_faults, ANSWER)
    done, error, stats = await drive(engine, deadline_s)
    assert (done.status, done.answer, error) == (Status.COMPLETED, "Bamako", None)
    assert len(set(engine.prompts)) == 2, "turn 1 is not asked for again"
    assert stats.num_engine_retries == len(waits) == num_faults
    assert all(wait >= (fault.retry_after_s or 0.1) for wait in waits)


@pytest.mark.parametrize("fault", [GONE, BUSY])
async def test_an_engine_that_refuses_for_good_is_given_up(waits: list[float], fault: EngineError) -> None:
    engine = FaultyEngine(*itertools.repeat(fault, 99))
    done, error, _ = await drive(engine)
    assert (done.status, error) == (Status.FAILED, fault)
    assert len(engine.prompts) == 5
    assert waits == sorted(waits)
    assert sum(waits) < 10


@pytest.mark.parametrize(
    "fault",
    [
        EngineError("400"),
        EngineOverloadedError("full", passing=False),
    ],
)
async def test_what_would_fail_again_is_not_asked_for_again(waits: list[float], fault: EngineError) -> None:
    engine = FaultyEngine(SEARCH, fault, ANSWER)
    done, error, _ = await drive(engine)
    assert (done.status, error, len(engine.prompts)) == (Status.FAILED, fault, 2)
    assert waits == []


@pytest.mark.parametrize(
    "fault", [EngineUnavailableError("stalled"), EngineOverloadedError("full", retry_after_s=60.0)]
)
async def test_an_engine_that_is_down_for_long_is_waited_for_where_there_is_something_to_lose(
    waits: list[float], fault: EngineError
) -> None:
    engine = FaultyEngine(fault, ANSWER)
    done, error, _ = await drive(engine)
    assert (done.status, error, len(engine.prompts), waits) == (Status.FAILED, fault, 1, [])
    engine = FaultyEngine(SEARCH, *[fault] * 7, ANSWER)
    done, error, _ = await drive(engine)
    assert (done.status, error, len(engine.prompts)) == (Status.COMPLETED, None, 9)


@pytest.mark.parametrize("text", ["<", "<think> so", "<search> Mali"])
async def test_a_completion_that_breaks_in_its_middle_is_not_asked_for_again_where_its_ids_can_not_be_read(
    waits: list[float], text: str
) -> None:
    engine = FaultyEngine((text, GONE), ANSWER)
    done, error, _ = await drive(engine)
    assert (done.status, error, len(engine.prompts)) == (Status.FAILED, GONE, 1)


async def test_a_wait_past_the_deadline_is_not_begun_so_that_the_reason_is_told(waits: list[float]) -> None:
    busy = EngineOverloadedError("full", retry_after_s=5.0)
    done, error, _ = await drive(FaultyEngine(SEARCH, busy, ANSWER), deadline_s=4.0)
    assert (done.status, error, waits) == (Status.FAILED, busy, [])


async def test_closing_a_drive_that_waits_for_a_retry_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def wait(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("searchr1.engines.resume.asyncio.sleep", wait)
    engine = FaultyEngine(BUSY)
    driving = asyncio.create_task(drive(engine))
    await waiting.wait()
    driving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await driving
    assert engine.num_open == 0


def test_every_kind_of_failure_keeps_what_it_knows() -> None:
    kinds: Sequence[type[EngineError]] = (EngineError, EngineUnavailableError, EngineOverloadedError)
    assert [(kind("x").passing, kind("x").retry_after_s) for kind in kinds] == [
        (False, None),
        (False, None),
        (True, None),
    ]
