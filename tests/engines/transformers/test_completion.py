"""The ends of completions and their chunks, token by token."""

from pathlib import Path

import pytest

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.transformers.completion import Completion
from searchr1.tokenizer import Tokenizer
from tests.support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(str(write_tiny_model(tmp_path_factory.mktemp("model"))))


def feed(params: SamplingParams, ids: list[int], tokenizer: Tokenizer, end_ids: frozenset[int]) -> list[Chunk | None]:
    completion = Completion((1,), params, params.max_tokens, priority=0, number=0)
    return [completion.add(token, -float(number), tokenizer, end_ids) for number, token in enumerate(ids)]


def test_a_stop_string_is_kept_and_what_follows_it_in_its_token_is_not(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab</answer> x")
    chunks = feed(SamplingParams(50, stop=("</search>", "</answ")), ids, tokenizer, frozenset())
    told = [chunk for chunk in chunks if chunk is not None]
    end = next(number for number, chunk in enumerate(told) if chunk.finish is not None)
    assert "".join(chunk.text for chunk in told[: end + 1]) == "ab</answ"
    assert told[end].finish == "stop"


def test_the_stop_string_that_ends_first_counts(tokenizer: Tokenizer) -> None:
    (only,) = (c for c in feed(SamplingParams(1, stop=("<", "b")), tokenizer.encode("<"), tokenizer, frozenset()) if c)
    assert (only.text, only.finish) == ("<", "stop")


def test_a_stop_string_across_tokens_is_found(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("q"), *tokenizer.encode("z"), *tokenizer.encode("q")]
    chunks = feed(SamplingParams(9, stop=("qzq",), stream_interval=5), ids, tokenizer, frozenset())
    assert chunks[:2] == [None, None]
    assert chunks[2] == Chunk("qzq", tuple(ids), "stop")


def test_an_end_token_ends_it_without_text(tokenizer: Tokenizer) -> None:
    (end,) = tokenizer.encode_prompt("<|im_end|>")
    chunks = feed(SamplingParams(9, logprobs=True), [*tokenizer.encode("q"), end], tokenizer, frozenset({end}))
    assert chunks[-1] == Chunk("", (end,), "stop", (-1.0,))


@pytest.mark.parametrize("last", ["end", "stop"])
def test_an_end_at_the_last_token_is_a_stop_and_not_the_length(tokenizer: Tokenizer, last: str) -> None:
    (end,) = tokenizer.encode_prompt("<|im_end|>")
    ids = [*tokenizer.encode("q"), end if last == "end" else tokenizer.encode("z")[0]]
    chunks = feed(SamplingParams(2, stop=("z",)), ids, tokenizer, frozenset({end}))
    assert chunks[-1] is not None
    assert chunks[-1].finish == "stop"


def test_an_unfinished_character_is_told_with_its_last_byte_and_never_without(tokenizer: Tokenizer) -> None:
    euro = tokenizer.encode("€")
    assert len(euro) == 3
    chunks = feed(SamplingParams(5), [*euro, *euro[:2]], tokenizer, frozenset())
    assert [chunk.text for chunk in chunks if chunk] == ["", "", "€", "", ""]
    assert chunks[-1] == Chunk("", (euro[1],), "length")


def test_chunks_come_by_the_interval_and_lose_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    ids = tokenizer.encode("Lorem ipsum, dolor.")
    chunks = feed(SamplingParams(len(ids), stream_interval=4, logprobs=True), ids, tokenizer, frozenset())
    told = [chunk for chunk in chunks if chunk is not None]
    assert [number for number, chunk in enumerate(chunks, 1) if chunk] == [
        *range(4, len(ids), 4),
        len(ids),
    ]
    assert "".join(chunk.text for chunk in told) == "Lorem ipsum, dolor."
    assert [token for chunk in told for token in chunk.token_ids] == ids
    assert [-p for chunk in told for p in chunk.logprobs or ()] == list(range(len(ids)))
    assert told[-1].finish == "length"
