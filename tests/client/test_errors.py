"""HTTP errors become one class per status, whatever their body; and what is worth another try."""

import time
from email.utils import formatdate

import httpx
import pytest

import searchr1_client as sdk
from searchr1_client._errors import connection_error, status_error


def test_openai_shaped_errors_keep_their_fields() -> None:
    body = {"error": {"message": "Shorten it.", "type": "invalid_request_error", "param": "question", "code": "long"}}
    error = status_error(httpx.Response(400, json=body, headers={"x-request-id": "req_1"}))
    assert isinstance(error, sdk.BadRequestError)
    assert (str(error), error.status_code, error.code, error.param) == ("Shorten it.", 400, "long", "question")
    assert (error.body, error.request_id) == (body, "req_1")
    assert not error.retryable


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (302, sdk.APIStatusError, False),
        (400, sdk.BadRequestError, False),
        (401, sdk.AuthenticationError, False),
        (403, sdk.PermissionDeniedError, False),
        (404, sdk.NotFoundError, False),
        (405, sdk.APIStatusError, False),
        (408, sdk.APIStatusError, True),
        (409, sdk.ConflictError, False),
        (413, sdk.PayloadTooLargeError, False),
        (418, sdk.APIStatusError, False),
        (422, sdk.UnprocessableEntityError, False),
        (429, sdk.RateLimitError, True),
        (500, sdk.InternalServerError, True),
        (502, sdk.InternalServerError, True),
        (503, sdk.ServiceUnavailableError, True),
        (599, sdk.InternalServerError, True),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[sdk.APIStatusError], retryable: bool) -> None:
    error = status_error(httpx.Response(status))
    assert type(error) is kind
    assert error.retryable is retryable
    assert isinstance(error, sdk.SearchR1Error)


def test_503_is_an_internal_server_error_too() -> None:
    assert issubclass(sdk.ServiceUnavailableError, sdk.InternalServerError)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "HTTP 502 Bad Gateway: no body"),
        (b"<html>" + b"x" * 5000, "HTTP 502 Bad Gateway: <html>xxx"),
        (b'{"error": "text"}', 'HTTP 502 Bad Gateway: {"error": "text"}'),
        (b"[1]", "HTTP 502 Bad Gateway: \\[1\\]"),
        (b"\xff\xfe", "HTTP 502 Bad Gateway"),
    ],
)
def test_other_bodies_are_quoted_in_short(content: bytes, says: str) -> None:
    error = status_error(httpx.Response(502, content=content))
    with pytest.raises(sdk.InternalServerError, match=says):
        raise error
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 3 ", 3.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("-1", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(header: str, expected: float | None) -> None:
    assert status_error(httpx.Response(503, headers={"retry-after": header})).retry_after_s == expected


def test_retry_after_as_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    header = formatdate(1_000_000_090, usegmt=True)
    assert status_error(httpx.Response(429, headers={"retry-after": header})).retry_after_s == 90.0


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (httpx.ConnectError("refused"), sdk.APIConnectionError, True),
        (httpx.ReadError(""), sdk.APIConnectionError, True),
        (httpx.RemoteProtocolError("closed"), sdk.APIConnectionError, True),
        (httpx.ConnectTimeout(""), sdk.APITimeoutError, True),
        (httpx.PoolTimeout(""), sdk.APITimeoutError, True),
        (httpx.ReadTimeout(""), sdk.APITimeoutError, False),
        (httpx.WriteTimeout(""), sdk.APITimeoutError, False),
        (httpx.UnsupportedProtocol(""), sdk.APIConnectionError, False),
        (httpx.LocalProtocolError("bad header"), sdk.APIConnectionError, False),
    ],
)
def test_no_answer(error: httpx.RequestError, kind: type[sdk.APIConnectionError], retryable: bool) -> None:
    error.request = httpx.Request("GET", "http://u:secret@host:81/v1/x?q=1")
    told = connection_error(error)
    assert type(told) is kind
    assert told.retryable is retryable
    assert "http://host:81" in str(told)
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("policy", "most"),
    [
        (sdk.RetryPolicy(), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (50, 8.0), (10_000, 8.0)]),
        (sdk.RetryPolicy(first_wait_s=3.0, longest_wait_s=5.0), [(1, 3.0), (2, 5.0)]),
    ],
)
def test_waits_double_up_to_a_bound_and_vary(policy: sdk.RetryPolicy, most: list[tuple[int, float]]) -> None:
    for attempt, most_s in most:
        waits = {policy.wait_s(None, attempt) for _ in range(50)}
        assert all(most_s / 2 <= wait <= most_s for wait in waits)
        assert len(waits) > 1


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(0.0, 0.0, 0.0), (7.0, 7.0, 7.7), (1e9, 60.0, 66.0)])
def test_the_servers_wait_is_kept_up_to_a_bound(asked_s: float, least_s: float, most_s: float) -> None:
    failure = sdk.RateLimitError("later", status_code=429, retry_after_s=asked_s)
    assert least_s <= sdk.RetryPolicy().wait_s(failure, 1) <= most_s
    assert sdk.RetryPolicy(longest_retry_after_s=2.0).wait_s(failure, 1) <= 2.2
