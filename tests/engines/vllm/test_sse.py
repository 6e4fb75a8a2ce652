import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.engines.vllm.sse import SseSplitter
from searchr1.errors import EngineError

STREAM = b': hi\n\nevent: x\ndata: {"a": "\xc3\xa9"}\n\ndata:[1]\r\n\r\ndata: [DONE]\n\ndata: cut of'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_payloads(cuts: list[int]) -> None:
    splitter = SseSplitter(99)
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    payloads = [payload for piece in pieces for payload in splitter.feed(piece)]
    assert payloads == [b'{"a": "\xc3\xa9"}', b"[1]", b"[DONE]"]


def test_a_long_line_is_read_and_one_without_an_end_is_not() -> None:
    splitter = SseSplitter(1000)
    for _ in range(2):
        assert splitter.feed(b"data: ") == []
        for _ in range(990):
            assert splitter.feed(b"x") == []
        assert splitter.feed(b"\n") == [b"x" * 990]
    for _ in range(1000):
        splitter.feed(b"x")
    with pytest.raises(EngineError, match="a line of more than 1000 bytes"):
        splitter.feed(b"x")
