"""Which headers of a request name a trace."""

import pytest

from searchr1.trace_context import trace_headers

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_trace_goes_on_with_its_state_and_nothing_else() -> None:
    received = {"traceparent": TRACE, "tracestate": "a=1,b=2", "baggage": "user=7"}
    assert trace_headers(received) == {"traceparent": TRACE, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        TRACE.upper(),
        f"ff{TRACE[2:]}",
        f"{TRACE}-more",
        f"{TRACE}\r\nx: y",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_does_not_go_on(traceparent: str) -> None:
    assert trace_headers({"traceparent": traceparent, "tracestate": "a=1"}) == {}


@pytest.mark.parametrize("tracestate", ["é=1", "a=1\r\nx: y", "x" * 513])
def test_a_state_that_no_header_should_hold_is_left_out(tracestate: str) -> None:
    assert trace_headers({"traceparent": TRACE, "tracestate": tracestate}) == {"traceparent": TRACE}
