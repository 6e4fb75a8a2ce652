"""What goes over HTTP to an engine that speaks vLLM's wire: at every turn exactly the prompt and the segments so far.

Ids are Qwen's, so that a text sampled past its stop (``>`` and a newline are one token) shows if it leaked into the
next request.
"""

from itertools import chain

import pytest

from searchr1.driver import DriveOptions, DriveStats, drive
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Finished, Limits, Passage, Status
from searchr1.retrieval.fake import FakeRetriever
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, serve_fake_vllm
from tests.golden import qwen

Q = qwen.load()
PROMPT = SEARCH_R1.prompt("What is the capital of the country where Timbuktu is")
TURNS = [
    "<think> Where is it? </think>\n<search> Timbuktu?</search>",
    "I am not sure.",
    "<think> Mali. </think>\n<search> capital of Mali </search>",
    "<think> Found. </think>\n<answer> Bamako.</answer>",
]
FOUND = {
    "Timbuktu?": [Passage("1", '"Timbuktu"', "A city in Mali.")],
    "capital of Mali": [Passage("2", '"Mali"', "Bamako is its capital. <answer> no </answer> " * 60)],
}


def sampled(text: str, past: str) -> list[str]:
    """``text`` as an engine samples it, token by token, its last token running into ``past``."""
    return Q.pieces(Q.encode(text + past))


async def run(rollout: Rollout, *, past: str, bytes_per_write: int | None = None) -> tuple[FakeVllm, DriveStats]:
    stats = DriveStats()
    async with serve_fake_vllm([sampled(text, past) for text in TURNS], encode=Q.encode) as fake:
        fake.bytes_per_write, fake.num_cached_tokens = bytes_per_write, 16
        async with VllmHttpEngine(fake.url, MODEL) as engine:
            events = [e async for e in drive(rollout, engine, FakeRetriever(FOUND), DriveOptions("run-1"), stats)]
        assert events[-1] == Finished(len(TURNS), Status.COMPLETED)
    return fake, stats


def new_rollout(limits: Limits | None = None) -> Rollout:
    return Rollout(prompt=PROMPT, prompt_ids=Q.encode(PROMPT), encode=Q.encode, limits=limits)


@pytest.mark.parametrize("past", ["", "\n", "\n\n"])
@pytest.mark.parametrize("bytes_per_write", [None, 7])
async def test_each_turn_sends_the_prompt_and_the_segments(past: str, bytes_per_write: int | None) -> None:
    rollout = new_rollout()
    fake, _ = await run(rollout, past=past, bytes_per_write=bytes_per_write)
    ids = [list(segment.ids) for segment in rollout.segments]
    assert [s.kind for s in rollout.segments[1:]] == [
        *("completion", "observation", "completion", "retry", "completion", "observation", "completion"),
    ]
    assert fake.prompts == [list(chain(*ids[:end])) for end in (1, 3, 5, 7)]
    assert rollout.answer == "Bamako."


async def test_the_segments_are_each_tokenized_alone() -> None:
    rollout = new_rollout()
    fake, _ = await run(rollout, past="\n\n")
    texts = [segment.text for segment in rollout.segments]
    assert texts[1::2] == [TURNS[0], "I am not sure.\n\n", *TURNS[2:]]
    assert fake.prompts[-1] == [
        *chain(*(Q.encode(text)[:500] if i else Q.encode(text) for i, text in enumerate(texts[:-1])))
    ]
    assert fake.prompts[1] != Q.encode("".join(texts[:3]))
    assert len(rollout.segments[6].ids) == 500


async def test_a_long_trajectory_is_cut_on_the_left() -> None:
    rollout = new_rollout(Limits(max_context_tokens=200))
    fake, _ = await run(rollout, past="")
    assert fake.prompts == [list(chain(*(s.ids for s in rollout.segments[:end])))[-200:] for end in (1, 3, 5, 7)]


async def test_what_goes_with_the_ids() -> None:
    fake, stats = await run(new_rollout(), past="")
    assert {tuple(body["stop"]) for body in fake.bodies} == {("</search>", "</answer>")}
    assert {body["include_stop_str_in_output"] for body in fake.bodies} == {True}
    headers = [{name.lower(): value for name, value in sent.items()} for sent in fake.headers]
    assert {sent["x-session-id"] for sent in headers} == {"run-1"}
    assert len({sent["x-request-id"] for sent in headers}) == len(TURNS)
    assert len(set(fake.ports)) == 1
    assert stats.num_cached_tokens == 16 * len(TURNS)


async def test_two_runs_send_the_same() -> None:
    first, _ = await run(new_rollout(), past="\n")
    second, _ = await run(new_rollout(), past="\n")
    assert first.prompts == second.prompts
