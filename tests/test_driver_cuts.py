"""Runs whose observations are cut anywhere, before a detokenizer that repeats a prompt that ends inside a character."""

from collections.abc import AsyncGenerator

import pytest

from searchr1.driver import DriveOptions, drive_to_end
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits, Passage, Status, TokenIds
from searchr1.retrieval.fake import FakeRetriever
from tests.engines.deterministic import STOPS, decode, encode, sampled

TURNS = ("<think> I look. </think> <search> rivers of Karnataka </search>", "<answer> ಕಾವೇರಿ </answer>")
PASSAGE = Passage("1", '"ಕಾವೇರಿ"', "ಕಾವೇರಿ ನದಿ 🙂 is a river. ನದಿ")


class ByTurns:
    """Writes a turn's text, detokenized after its prompt as vLLM does it."""

    def __init__(self, *texts: str) -> None:
        self._texts = iter(texts)
        self.prompts: list[TokenIds] = []

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        self.prompts.append(prompt_ids)
        for chunk in sampled(prompt_ids, encode(next(self._texts)), params):
            yield chunk


@pytest.mark.parametrize("kept", range(15, 80))
@pytest.mark.parametrize("training", [False, True])
async def test_the_model_searches_for_what_it_wrote_wherever_an_observation_was_cut(kept: int, training: bool) -> None:
    assert len(encode(SEARCH_R1.observation([PASSAGE]))) == 80
    prompt, engine = SEARCH_R1.prompt("Which rivers are in Karnataka"), ByTurns(*TURNS)
    rollout = Rollout(
        prompt=prompt,
        prompt_ids=encode(prompt),
        encode=encode,
        decode=decode if training else None,
        spell=decode,
        limits=Limits(max_observation_tokens=kept),
    )
    driven = await drive_to_end(rollout, engine, FakeRetriever(lambda *_: [PASSAGE]), DriveOptions("s"))
    assert driven.queries == ("rivers of Karnataka",)
    assert (rollout.status, rollout.answer) == (Status.COMPLETED, "ಕಾವೇರಿ")
    assert [segment.text for segment in rollout.segments if segment.sampled] == list(TURNS)


def test_the_detokenizer_repeats_a_prompt_that_ends_inside_a_character() -> None:
    half = tuple(encode("Write <search> query </search>: ಕ"))[:-1]
    [*_, last] = chunks = sampled(half, encode(" yes"), SamplingParams(20, STOPS))
    assert "".join(chunk.text for chunk in chunks) == "Write <search> query </search>"
    assert last.finish == "stop"
