"""One completion's stream: events become chunks, and an engine that lies or rambles is found out."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest

from searchr1.engines.base import Chunk
from searchr1.engines.vllm.stream import CompletionReader, error_of_status, event_decoder, message_of
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError

VOCAB = 100
DONE = b"data: [DONE]\n\n"


def reader(*, max_tokens: int = 9, logprobs: bool = False) -> CompletionReader:
    return CompletionReader(event_decoder(VOCAB), num_prompt_ids=5, max_tokens=max_tokens, logprobs=logprobs)


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def choice(text: str = "a", ids: Any = (1,), finish: str | None = None, **more: Any) -> bytes:
    return event(choices=[{"index": 0, "text": text, "token_ids": ids, "finish_reason": finish} | more])


def usage(num_tokens: Any = 2, cached: Any = 0) -> bytes:
    return event(
        choices=[], usage={"completion_tokens": num_tokens, "prompt_tokens_details": {"cached_tokens": cached}}
    )


def read(data: bytes, pieces: int = 1, **options: Any) -> list[Chunk]:
    """Return the chunks of a whole response that comes in pieces."""
    it = reader(**options)
    edges = [len(data) * i // pieces for i in range(pieces + 1)]
    chunks = [it.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    return [*(chunk for chunk in chunks if chunk is not None), it.end()]


GOOD = choice() + choice("b", (99,), "stop") + usage(cached=4) + DONE


@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_whole_stream(pieces: int) -> None:
    assert read(GOOD, pieces) == [Chunk("a", (1,)), Chunk("b", (99,), "stop", None, 4)]


@pytest.mark.parametrize(
    ("data", "cached"),
    [
        (choice() + choice(finish="stop") + DONE, None),
        (choice() + choice(finish="stop"), None),
        (choice() + choice("", (), "stop") + event(choices=[], usage=None) + DONE, None),
        (choice() + choice(finish="stop") + event(choices=[], usage={}) + DONE, None),
        (choice() + choice(finish="stop") + usage(2, None) + DONE, None),
        (choice() + choice(finish="stop") + usage(None, 3) + DONE, 3),
        (choice() + choice(finish="stop") + usage(2, 10**6) + DONE, 5),
        (choice() + choice(finish="stop") + choice("", ()) + usage() + DONE, 0),
        (b": ping\n\n" + choice() + b"event: x\n\n" + choice(finish="stop") + usage() + DONE, 0),
    ],
)
def test_what_an_engine_may_leave_out_or_add(data: bytes, cached: int | None) -> None:
    chunks = read(data)
    assert "".join(chunk.text for chunk in chunks).startswith("a")
    assert (chunks[-1].finish, chunks[-1].num_cached_tokens) == ("stop", cached)


HOSTILE = {
    "an id below zero": choice(ids=(-5,)),
    "an id at the vocabulary's end": choice(ids=(VOCAB,)),
    "a huge id": choice(ids=(10**9,)),
    "an id past 64 bits": choice(ids=(2**70,)),
    "an id as text": choice(ids=("1",)),
    "an id as a fraction": choice(ids=(1.5,)),
    "an id as a boolean": choice(ids=(True,)),
    "an id as null": choice(ids=(None,)),
    "ids that are a number": choice(ids=7),
    "ids that are an object": choice(ids={"0": 1}),
    "no ids": choice(ids=None),
    "no ids at all": event(choices=[{"index": 0, "text": "a"}]),
    "text before any id": choice(ids=()) + choice(finish="stop") + DONE,
    "another choice": event(choices=[{"index": 1, "text": "a", "token_ids": [1]}]),
    "text that is a number": choice(text=1),  # type: ignore[arg-type]
    "text that is null": choice(text=None),  # type: ignore[arg-type]
    "an unknown finish": choice(finish="content_filter\x1b[2J"),
    "a finish that is a number": choice(finish=0),  # type: ignore[arg-type]
    "text after the finish": choice(finish="stop") + choice("AFTER"),
    "ids after the finish": choice(finish="stop") + choice("", (2,)),
    "a second finish": choice(finish="stop") + choice(finish="stop"),
    "more ids than asked for": choice(ids=(1,) * 10),
    "more ids than asked for, one by one": choice() * 10,
    "a chunk twice": choice() + choice("b", (2,)) * 2 + choice("c", (3,), "stop") + usage(3) + DONE,
    "a lost chunk": choice(finish="stop") + usage(2) + DONE,
    "a negative count": choice(finish="stop") + usage(-1) + DONE,
    "a count as text": choice(finish="stop") + usage("2") + DONE,
    "a negative count of cached tokens": choice() + choice(finish="stop") + usage(2, -3) + DONE,
    "cached tokens as text": choice() + choice(finish="stop") + usage(2, "3") + DONE,
    "cached tokens as a fraction": choice() + choice(finish="stop") + usage(2, 0.5) + DONE,
    "NaN cached tokens": choice() + choice(finish="stop") + usage(2, float("nan")) + DONE,
    "usage that is a list": choice(finish="stop") + event(choices=[], usage=[]) + DONE,
    "invalid UTF-8": b'data: {"choices":[{"text":"\xff","token_ids":[1]}]}\n\n',
    "half a surrogate": b'data: {"choices":[{"text":"\\ud800","token_ids":[1]}]}\n\n',
    "no JSON": b"data: <html>\n\n",
    "half JSON": b'data: {"choices":\n\n',
    "an array": b"data: []\n\n",
    "null": b"data: null\n\n",
    "a number": b"data: 1\n\n",
    "an empty event": b"data:\n\n",
    "NaN": b"data: NaN\n\n",
    "deep JSON": b"data: " + b"[" * 50_000 + b"\n\n",
    "deep JSON in a field that is not read": b'data: {"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n\n",
    "no event": b"<html>hello</html>\n",
    "nothing": b"",
    "only done": DONE,
    "only pings": b": ping\n\n" * 20,
    "an error": event(error={"message": "broken", "code": 400}),
    "an error that is text": event(error="broken"),
    "an error that is deep": b'data: {"error": ' + b'{"error": ' * 500 + b"1" + b"}" * 500 + b"}\n\n",
    "an error with odd code": event(error={"message": ["broken"], "code": "x"}),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("pieces", [1, 7])
def test_what_no_engine_should_send_is_an_engine_error(name: str, pieces: int) -> None:
    with pytest.raises(EngineError) as raised:
        read(HOSTILE[name], pieces)
    assert type(raised.value) is EngineError
    assert not raised.value.passing
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    "logprobs",
    [None, [], [-0.5], [-0.5] * 3, [None, None], ["x", "y"], [float("nan")] * 2, [float("-inf")] * 2, "ab", {"a": 1}],
)
def test_logprobs_that_do_not_belong_to_the_ids_are_an_engine_error(logprobs: Any) -> None:
    data = choice(ids=(1, 2), finish="stop", logprobs={"token_logprobs": logprobs}) + usage() + DONE
    with pytest.raises(EngineError):
        read(data, logprobs=True)


@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 4096,
        b"data: " + b"x" * 4096,
        choice("x" * 3000, ()),
        choice("x" * 3000, (1,)),
        b": ping\n" * 500,
        b"\n" * 4096,
        choice("", ()) * 20,
    ],
)
def test_a_stream_without_an_end_is_given_up_after_a_bounded_number_of_bytes(piece: bytes) -> None:
    it = reader()
    with pytest.raises(EngineError):
        _feed(it, piece, 2**20)


def _feed(it: CompletionReader, piece: bytes, num_bytes: int) -> None:
    for _ in range(0, num_bytes, len(piece)):
        it.feed(piece)


@pytest.mark.parametrize(
    "data",
    [choice() * 3, b'data: {"id":"\xff","choices":[{"text":"a","token_ids":[1]}]}\n\n'],
    ids=["no end", "no end, and invalid UTF-8 in a field that is not read"],
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_stream_that_ends_too_early_may_be_asked_for_again(data: bytes, pieces: int) -> None:
    with pytest.raises(EngineUnavailableError, match="ended before its completion") as raised:
        read(data, pieces)
    assert raised.value.passing


@pytest.mark.parametrize(
    ("status", "kind", "passing"),
    [
        (429, EngineOverloadedError, True),
        (503, EngineOverloadedError, True),
        (500, EngineUnavailableError, True),
        (501, EngineUnavailableError, False),
        (502, EngineUnavailableError, True),
        (504, EngineUnavailableError, True),
        *((status, EngineError, False) for status in (0, 204, 301, 307, 400, 401, 404, 418)),
    ],
)
def test_a_status_stands_for_a_kind_of_error(status: int, kind: type[EngineError], passing: bool) -> None:
    error = error_of_status(status, "x", retry_after_s=3.0)
    assert (type(error), error.passing) == (kind, passing)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"message": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b"too\nlong\x1b[2J\x00", "too long [2J"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": 1}', '{"error": 1}'),
        (b"", ""),
        (b"[" * 50_000, "[" * 300),
        (b"x" * 10_000, "x" * 300),
        (json.dumps({"error": "y" * 10_000}).encode(), "y" * 300),
    ],
)
def test_the_engines_words_come_short_and_in_one_line(body: bytes, message: str) -> None:
    assert message_of(body) == message


def test_events_that_arrive_together_become_one_chunk() -> None:
    def logged(text: str, ids: Sequence[int]) -> bytes:
        return choice(text, ids, logprobs={"token_logprobs": [-1.0] * len(ids)})

    it = reader(logprobs=True)
    together = it.feed(logged("a", [1]) + logged("bc", [2, 3]) + logged("d", [4])[:9])
    assert together == Chunk("abc", (1, 2, 3), None, (-1.0, -1.0, -1.0))
    assert it.feed(logged("d", [4])[9:]) == Chunk("d", (4,), None, (-1.0,))
