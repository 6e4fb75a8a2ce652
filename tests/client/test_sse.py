"""The SSE decoder against the rules of event streams, and the typed events in them."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1_client._errors import StreamFormatError
from searchr1_client._sse import EventDecoder, ServerSentEvent, SSEDecoder
from searchr1_client.events import AnswerCompleted, RunCompleted, ThinkDelta, UnknownEvent

STREAM = (
    '\ufeffid: 0\r\nevent: run.started\r\ndata: {"é": "日本 𝄞"}\r\n\r\n'
    ": ping\n\n"
    "data: one\rdata:two\rdata\rdata:  three\r\r"
    "event: ignored without data\n\n"
    "id: 7\nretry: 10\nunknown: x\ndata: \u2028not a line end\x85\x0b\n\n"
    "id: a\0b\ndata: kept id\n\n"
    "data: never completed\n"
).encode()
EXPECTED = [
    ServerSentEvent("run.started", '{"é": "日本 𝄞"}', "0"),
    ServerSentEvent("message", "one\ntwo\n\n three", "0"),
    ServerSentEvent("message", "\u2028not a line end\x85\x0b", "7"),
    ServerSentEvent("message", "kept id", "7"),
]


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def decode(pieces: list[bytes]) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def test_a_whole_stream() -> None:
    assert decode([STREAM]) == EXPECTED


def test_a_stream_byte_by_byte() -> None:
    assert decode([bytes([byte]) for byte in STREAM]) == EXPECTED


@given(st.lists(st.integers(0, len(STREAM))))
def test_any_chunking_gives_the_same_events(cuts: list[int]) -> None:
    assert decode(split(STREAM, cuts)) == EXPECTED


FRAGMENTS = ["a", ":", "\r", "\n", "\r\n", " ", "é", "𝄞", "\0", "\ufeff", "data:", "id:", "event:", "\n\n"]


@given(st.lists(st.sampled_from(FRAGMENTS)).map("".join), st.data())
def test_any_chunking_of_any_text_gives_the_same_events(text: str, data: st.DataObject) -> None:
    stream = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    assert decode(split(stream, cuts)) == decode([stream])


def test_an_event_is_there_as_soon_as_its_blank_line_ends_in_cr() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: x\r\n\r") == [ServerSentEvent("message", "x", "")]
    assert decoder.feed(b"\ndata: y\n\n") == [ServerSentEvent("message", "y", "")]


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert decode([b"data: a\xffb\n\n"])[0].data == "a\ufffdb"


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 200, b"data: xxxxxxxx\n" * 20, b"x" * 200])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    with pytest.raises(StreamFormatError, match="larger than 100 bytes"):
        decoder.feed(piece)


def test_heartbeats_do_not_count_towards_an_events_size() -> None:
    decoder = SSEDecoder(max_event_bytes=100)
    assert decoder.feed(b": ping\n" * 1000 + b"data: x\n\n") == [ServerSentEvent("message", "x", "")]


def message(seq: int, type: str, **fields: object) -> bytes:
    event = {"type": type, "seq": seq, "run_id": "r", "turn": 1, "t_ms": 1.0, **fields}
    return f"id: {seq}\nevent: {type}\ndata: {json.dumps(event)}\n\n".encode()


def test_events_are_typed_and_those_of_the_future_keep_their_fields() -> None:
    stream = [
        message(0, "think.delta", text="hm"),
        message(1, "future.event", mood="bright"),
        message(2, "answer.completed", text="Mali", citations=[]),
        message(3, "run.completed", status="completed", usage={}),
    ]
    events = list(EventDecoder().feed(b": ping\n".join(stream)))
    assert [type(event) for event in events] == [ThinkDelta, UnknownEvent, AnswerCompleted, RunCompleted]
    assert events[1].model_dump()["mood"] == "bright"


@pytest.mark.parametrize("bad", [b"data: not json\n\n", b"data: [DONE]\n\n", b'data: {"type": "think.delta"}\n\n'])
def test_what_is_not_an_event_is_an_error(bad: bytes) -> None:
    with pytest.raises(StreamFormatError, match="'message' data"):
        list(EventDecoder().feed(bad))
