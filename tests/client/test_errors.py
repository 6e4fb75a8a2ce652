"""HTTP errors become one typed error, whatever their body; requests carry only what was chosen."""

import httpx
import pytest

from searchr1_client._errors import status_error
from searchr1_client._request import RunOptions, auth_headers, research_url


def test_openai_shaped_errors_keep_their_fields() -> None:
    body = {"error": {"message": "Shorten it.", "type": "invalid_request_error", "param": "question", "code": "long"}}
    error = status_error(httpx.Response(400, json=body))
    assert (str(error), error.status, error.code, error.param) == ("Shorten it.", 400, "long", "question")
    assert not error.retryable


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
    with pytest.raises(type(error), match=says):
        raise error
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7.0), ("0", 0.0), (" 3 ", 3.0), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None), ("inf", None)],
)
def test_retry_after(header: str, expected: float | None) -> None:
    error = status_error(httpx.Response(503, headers={"retry-after": header}))
    assert error.retryable
    assert error.retry_after_s == expected


def test_the_body_holds_only_what_was_chosen() -> None:
    options = RunOptions(max_searches=0, temperature=0.0)
    assert options.body("Why?", stream=True) == {
        "question": "Why?",
        "stream": True,
        "max_searches": 0,
        "temperature": 0.0,
    }


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_address_may_or_may_not_name_the_version(base: str) -> None:
    assert research_url(base) == "http://h:1/v1/research"


def test_no_key_sends_no_header() -> None:
    assert auth_headers(None) == {}
    assert auth_headers("k") == {"Authorization": "Bearer k"}
