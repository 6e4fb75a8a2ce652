import itertools

from hypothesis import given
from hypothesis import strategies as st

from searchr1.engines.vllm.sse import SseSplitter

STREAM = b': hi\n\nevent: x\ndata: {"a": "\xc3\xa9"}\n\ndata:[1]\r\n\r\ndata: [DONE]\n\ndata: cut of'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_payloads(cuts: list[int]) -> None:
    splitter = SseSplitter(99)
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    payloads = [payload for piece in pieces for payload in splitter.feed(piece)]
    assert payloads == [b'{"a": "\xc3\xa9"}', b"[1]", b"[DONE]"]
