"""Frames that are filled in: byte for byte what encoding each chunk gives."""

from hypothesis import given
from hypothesis import strategies as st

from searchr1.gateway.chat.frames import ChatFrames
from searchr1.gateway.chat.shape import TEXT_MARK, ChatShape
from searchr1.gateway.sse import encode_data
from searchr1_client.events import ThinkDelta
from searchr1_client.fold import RunFold


def delta(text: str) -> ThinkDelta:
    return ThinkDelta(seq=1, run_id="run", turn=1, t_ms=1.0, text=text)


def encoded(shape: ChatShape, index: int, event: ThinkDelta) -> bytes:
    chunk = shape.chunk(index, event, RunFold())
    assert chunk is not None
    return encode_data(chunk)


@given(
    text=st.one_of(st.text(), st.sampled_from([TEXT_MARK, '"', "\\", "\u2028\u202e\x7f\x00", "data: [DONE]\n\n"])),
    index=st.integers(0, 3),
    include_usage=st.booleans(),
)
def test_reasoning_is_framed_as_any_chunk_is(text: str, index: int, include_usage: bool) -> None:
    shape = ChatShape("chatcmpl-1", 'a "model"\u2028', 1_760_000_000, include_usage=include_usage)
    frames = ChatFrames(shape)
    for event in (delta(text), delta("and more"), delta(text)):
        assert frames.frame(index, event, RunFold()) == encoded(shape, index, event)
