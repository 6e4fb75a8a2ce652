"""A model whose every run is known beforehand: question N leads to one search and an answer of its own."""

import re
from collections.abc import Sequence

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Limits
from tests.engines.deterministic import decode, encode, sampled

_CITIES = ("Ōsaka", "日本橋", "São Paulo", "Reykjavík", "Nuuk 🙂", "Łódź")


def completion_of(number: int, turn: int) -> str:
    """What the model writes in a turn of question ``number``."""
    city = _CITIES[number % len(_CITIES)]
    if turn == 1:
        return f"<think> I look for {city}, number {number}. </think>\n<search> who lives in {city} {number} </search>"
    return f"<think> Number {number} says it: naïve 龘 é. </think>\n<answer> {city} {number} </answer>"


def answer_of(number: int) -> str:
    return f"{_CITIES[number % len(_CITIES)]} {number}"


def new_rollout(number: int) -> Rollout:
    prompt = f"Question number {number}: who?\n"
    return Rollout(
        prompt=prompt,
        prompt_ids=encode(prompt),
        encode=encode,
        spell=decode,
        limits=Limits(max_turns=3),
    )


def expected_segments(number: int) -> list[tuple[str, tuple[int, ...]]]:
    """Text and sampled ids of the completions of an undisturbed run."""
    expected = []
    for turn in (1, 2):
        ids = encode(completion_of(number, turn))
        params = SamplingParams(500, ("</search>", "</answer>"))
        chunks = sampled(encode("x"), ids, params)
        text = "".join(chunk.text for chunk in chunks)
        expected.append((text, tuple(token for chunk in chunks for token in chunk.token_ids)))
    return expected


def questions_model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """See ``FakeVllm.model``."""
    text = decode(tuple(prompt_ids))
    found = re.match(r"Question number (\d+)", text)
    if found is None:  # A probe.
        return sampled(prompt_ids, encode("yes"), params)
    whole = encode(completion_of(int(found[1]), 1 + text.count("</information>")))
    done = next(n for n in range(len(whole), -1, -1) if list(prompt_ids[len(prompt_ids) - n :]) == whole[:n])
    return sampled(prompt_ids, whole[done:], params)
