"""Completions that break off and go on: their text and ids against those of undisturbed ones."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.resume import UnbrokenCompletion
from searchr1.engines.retry_budget import RetryBudget
from searchr1.errors import (
    EngineClosedError,
    EngineDrainedError,
    EngineError,
    EngineOverloadedError,
    EngineUnavailableError,
)
from tests.engines.deterministic import STOPS, OneTextEngine, decode, encode, sampled

PROMPT = tuple(encode("Question: who lives in Ōsaka?\n"))
TEXT = "<think> naïve 日本語 🙂 é </think>\n<search> Ōsaka 龘 </search>\nand what comes after it"
GONE = EngineUnavailableError("reset", passing=True)
FAULTS = [
    GONE,
    EngineUnavailableError("stalled"),
    EngineOverloadedError("busy"),
    EngineOverloadedError("busy", retry_after_s=3.0),
    EngineDrainedError("drained"),
]
GREEDY = SamplingParams(max_tokens=200, stop=STOPS, temperature=0.0)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits, which pass at once."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        noted.append(seconds)
        await sleep(0)

    with monkeypatch.context() as patched:
        patched.setattr("searchr1.engines.resume.asyncio.sleep", note)
        yield noted


def asked(
    engine: OneTextEngine, params: SamplingParams, *, left_s: float = float("inf"), budget: RetryBudget | None = None
) -> UnbrokenCompletion:
    return UnbrokenCompletion(
        engine,
        engine.prompt,
        params,
        session="s",
        decode=decode,
        left_s=lambda: left_s,
        budget=budget or RetryBudget(floor_per_s=1000.0),
    )


async def read(completion: UnbrokenCompletion) -> list[Chunk]:
    async with aclosing(completion.chunks()) as coming:
        chunks = [chunk async for chunk in coming]
    assert completion.rest == ((), ())
    assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return chunks


def whole(chunks: Sequence[Chunk]) -> tuple[str, tuple[int, ...], tuple[float, ...], str | None]:
    ids = tuple(token for chunk in chunks for token in chunk.token_ids)
    logprobs = tuple(value for chunk in chunks for value in chunk.logprobs or ())
    return "".join(chunk.text for chunk in chunks), ids, logprobs, chunks[-1].finish


def undisturbed(text: str, params: SamplingParams) -> tuple[str, tuple[int, ...], tuple[float, ...], str | None]:
    return whole(sampled(PROMPT, encode(text), params))


def params_of(interval: int, max_tokens: int = 200) -> SamplingParams:
    return SamplingParams(max_tokens, STOPS, temperature=0.0, logprobs=True, stream_interval=interval)


@pytest.mark.parametrize("interval", [1, 2, 3, 5, 16])
async def test_a_completion_that_breaks_anywhere_ends_as_an_undisturbed_one(interval: int) -> None:
    params = params_of(interval)
    expected = undisturbed(TEXT, params)
    assert "\ufffd" not in expected[0]
    assert expected[0].endswith("</search>")
    for cut in range(len(sampled(PROMPT, encode(TEXT), params))):
        engine = OneTextEngine(PROMPT, TEXT, iter([(cut, GONE)]))
        completion = asked(engine, params)
        assert whole(await read(completion)) == expected, cut
        assert (completion.num_retries, engine.num_open) == (1, 0)


@given(
    cuts=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(FAULTS)), min_size=1, max_size=6),
    interval=st.integers(1, 17),
    max_tokens=st.integers(1, 80),
    text=st.text(st.sampled_from("aé日🙂 </search>answer\n"), min_size=1, max_size=40).map(lambda s: s + TEXT),
)
@settings(max_examples=150)
async def test_any_number_of_breaks_changes_nothing(
    cuts: list[tuple[int, EngineError]], interval: int, max_tokens: int, text: str
) -> None:
    params = params_of(interval, max_tokens)
    # A fault before the first token may be one that is not waited for.
    faults = [(max(1, cut) if number == 0 else cut, error) for number, (cut, error) in enumerate(cuts)]
    engine = OneTextEngine(PROMPT, text, iter(faults))
    assert whole(await read(asked(engine, params))) == undisturbed(text, params)
    assert engine.num_open == 0


async def test_a_completion_whose_only_token_was_dropped_is_still_waited_for() -> None:
    text = "🙂" + TEXT
    params = params_of(1)
    # The first break comes inside the first character, and the others before anything comes again.
    engine = OneTextEngine(PROMPT, text, iter([(1, GONE), *[(0, GONE)] * 6]))
    assert whole(await read(asked(engine, params))) == undisturbed(text, params)


@pytest.mark.parametrize("stop", ["</search>", "</answer>"])
async def test_a_stop_string_across_the_break_ends_the_completion(stop: str) -> None:
    text = f"<think> a {stop} b c d e f"
    params = params_of(1)
    expected = undisturbed(text, params)
    inside = [n for n in range(len(expected[1])) if stop[:3] in decode(expected[1][:n])]
    assert inside, "the tag is one token"
    for cut in inside:
        assert whole(await read(asked(OneTextEngine(PROMPT, text, iter([(cut, GONE)])), params_of(8)))) == expected
        engine = OneTextEngine(PROMPT, text, iter([(cut, GONE)]))
        chunks = await read(asked(engine, params))
        assert whole(chunks) == expected
        assert engine.num_open == 0


async def test_an_aborted_completion_goes_on_after_what_came_with_the_abort() -> None:
    params = params_of(3)
    engine = OneTextEngine(PROMPT, TEXT, iter([(2, GONE)]), abort=True)
    assert whole(await read(asked(engine, params))) == undisturbed(TEXT, params)
    assert len(engine.requests) == 2


async def test_the_rest_is_asked_for_with_what_is_left() -> None:
    engine = OneTextEngine(PROMPT, "a b c d e f g h", iter([(3, GONE), (1, GONE)]))
    params = SamplingParams(max_tokens=9, temperature=1.0, seed=2**63 - 1, stop=STOPS)
    await read(asked(engine, params))
    lengths = [len(prompt) - len(PROMPT) for prompt, _ in engine.requests]
    assert lengths == [0, 3, 4]
    assert [given.max_tokens for _, given in engine.requests] == [9, 6, 5]
    seeds = [given.seed for _, given in engine.requests]
    assert len(set(seeds)) == 3
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)


async def test_what_had_come_whole_is_not_asked_for_again() -> None:
    """The connection may break between the last token and the word that it was the last."""
    text, ids, _, _ = whole(sampled(PROMPT, encode("a b c d e f g h")[:3], SamplingParams(99, temperature=0.0)))
    params = SamplingParams(max_tokens=3, temperature=0.0)

    class WithoutEnd(OneTextEngine):
        async def generate(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            async for chunk in super().generate(*args, **kwargs):
                yield Chunk(chunk.text, chunk.token_ids)

    engine = WithoutEnd(PROMPT, "a b c d e f g h")
    assert whole(await read(asked(engine, params))) == (text, ids, (), "length")
    assert len(engine.requests) == 1


@pytest.mark.parametrize("error", [EngineError("400"), EngineClosedError("closed")])
@pytest.mark.parametrize("cut", [0, 4])
async def test_an_error_that_stays_ends_the_completion(cut: int, error: EngineError, waits: list[float]) -> None:
    engine = OneTextEngine(PROMPT, TEXT, iter([(cut, error)]))
    with pytest.raises(EngineError) as raised:
        await read(asked(engine, params_of(1)))
    assert (raised.value, waits, len(engine.requests), engine.num_open) == (error, [], 1, 0)


async def test_an_engine_that_is_down_is_waited_for_until_the_deadline(waits: list[float]) -> None:
    down = EngineUnavailableError("down", retry_after_s=20.0)
    engine = OneTextEngine(PROMPT, TEXT, iter([(4, GONE), (0, down), (0, down)]))
    assert whole(await read(asked(engine, params_of(1), left_s=30.0))) == undisturbed(TEXT, params_of(1))
    assert [wait >= 20.0 for wait in waits] == [False, True, True]
    engine = OneTextEngine(PROMPT, TEXT, iter([(4, GONE), (0, down)]))
    with pytest.raises(EngineUnavailableError) as raised:
        await read(asked(engine, params_of(1), left_s=10.0))
    assert raised.value is down


async def test_a_completion_without_a_deadline_is_given_up_some_time(waits: list[float]) -> None:
    engine = OneTextEngine(PROMPT, TEXT, iter([(4, GONE)] * 2 + [(0, GONE)] * 9999))
    with pytest.raises(EngineUnavailableError):
        await read(asked(engine, params_of(1)))
    assert 300 < sum(waits) < 700


async def test_one_that_is_drained_goes_on_at_once(waits: list[float]) -> None:
    budget = RetryBudget(share=0.0, floor_per_s=0.0)
    engine = OneTextEngine(PROMPT, TEXT, iter([(3, EngineDrainedError("moved"))] * 3))
    completion = asked(engine, params_of(1), budget=budget)
    assert whole(await read(completion)) == undisturbed(TEXT, params_of(1))
    assert (waits, completion.num_resumes, budget.num_refused) == ([], 3, 0)


async def test_a_spent_budget_makes_what_has_begun_wait_and_what_has_not_fail(waits: list[float]) -> None:
    budget = RetryBudget(share=0.0, floor_per_s=0.1, clock=lambda: sum(waits))
    assert budget.try_spend()
    with pytest.raises(EngineUnavailableError):
        await read(asked(OneTextEngine(PROMPT, TEXT, iter([(0, GONE)] * 9)), params_of(1), budget=budget))
    assert sum(waits) < 8.0
    completion = asked(OneTextEngine(PROMPT, TEXT, iter([(4, GONE)])), params_of(1), budget=budget)
    assert whole(await read(completion)) == undisturbed(TEXT, params_of(1))
    assert completion.num_refused == budget.num_refused - 4
    assert sum(waits) >= 9.0


async def test_cached_tokens_are_those_of_the_prompt_alone() -> None:
    engine = OneTextEngine(PROMPT, TEXT, iter([(4, GONE)]))
    assert (await read(asked(engine, params_of(1))))[-1].num_cached_tokens == 1
