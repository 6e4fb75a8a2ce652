"""Calls, options, retries and raw answers of both clients, against answers that the test writes down."""

import asyncio
import uuid
from functools import partial
from typing import Any

import httpx
import pytest

import searchr1_client as sdk
from searchr1_client._transport import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S
from tests.client.conftest import EVENTS, RUN, RUN_ID, Both, Server, refusal, sse, stream

DELETED = {"id": RUN_ID, "object": "research.run.deleted", "deleted": True}
LISTED = {"object": "list", "data": [], "has_more": False, "last_id": None}
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x", "new": 1}]}


def ok(body: object, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=body, headers=headers)


@pytest.mark.parametrize(
    ("method", "argument", "answer", "sent"),
    [
        ("research.create", "Why?", RUN, "POST /v1/research"),
        ("research.replay", RUN_ID, RUN, "POST /v1/research/replay"),
        ("research.retrieve", RUN_ID, RUN, f"GET /v1/research/{RUN_ID}"),
        ("research.delete", RUN_ID, DELETED, f"DELETE /v1/research/{RUN_ID}"),
        ("research.list", None, LISTED, "GET /v1/research"),
        ("models.list", None, MODELS, "GET /v1/models"),
    ],
)
async def test_each_method_sends_its_request_and_types_its_answer(
    both: Both, method: str, argument: str | None, answer: dict[str, object], sent: str
) -> None:
    server = Server(ok(answer))
    result = await both(server, method, *([argument] if argument else []))
    assert server.paths == [sent]
    assert result.model_dump(exclude_unset=True).items() <= answer.items() or method == "models.list"
    assert type(result).__name__ in ("Run", "RunDeleted", "RunList", "ModelList")


async def test_cancel(both: Both) -> None:
    server = Server()
    assert (await both(server, "research.cancel", RUN_ID)).status == "cancelled"
    assert [request.url.path for request in server.cancels] == [f"/v1/research/{RUN_ID}/cancel"]


async def test_raw_answers_have_their_http_side(both: Both) -> None:
    server = Server(ok(RUN, **{"x-request-id": "req_7", "x-run-id": RUN_ID}))
    raw = await both(server, "research.with_raw_response.create", "Why?", temperature=0.0)
    assert (raw.status_code, raw.request_id, raw.headers["x-run-id"]) == (200, "req_7", RUN_ID)
    assert raw.parse().id == RUN_ID


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), ok({"hello": "there"}), ok([])])
async def test_success_that_is_not_ours_is_an_error(both: Both, answer: httpx.Response) -> None:
    with pytest.raises(sdk.APIResponseValidationError, match="not as a Search-R1 gateway does"):
        await both(Server(answer), "research.create", "Why?")


REFUSED = httpx.ConnectError("refused")
DROPPED = httpx.RemoteProtocolError("closed")


@pytest.mark.parametrize("failures", [[refusal(503)], [REFUSED, DROPPED], [refusal(500), refusal(408)]])
async def test_what_may_pass_is_tried_again(both: Both, failures: list[httpx.Response | Exception]) -> None:
    server = Server(*failures, ok(RUN))
    assert (await both(server, "research.create", "Why?")).id == RUN_ID
    assert len(server.requests) == len(failures) + 1
    assert len({request.content for request in server.requests}) == 1


@pytest.mark.parametrize(
    ("failure", "raised", "num_requests"),
    [
        (refusal(429), sdk.RateLimitError, 3),
        (refusal(400), sdk.BadRequestError, 1),
        (refusal(409), sdk.ConflictError, 1),
        (REFUSED, sdk.APIConnectionError, 3),
        (httpx.ReadTimeout("slow"), sdk.APITimeoutError, 1),
        (httpx.ConnectTimeout("slow"), sdk.APITimeoutError, 3),
    ],
)
async def test_the_last_failure_is_raised_with_its_cause(
    both: Both, failure: httpx.Response | Exception, raised: type[Exception], num_requests: int
) -> None:
    server = Server(*[failure] * num_requests)
    with pytest.raises(raised) as caught:
        await both(server, "research.create", "Why?")
    assert len(server.requests) == num_requests
    if isinstance(failure, Exception):
        assert caught.value.__cause__ is failure


@pytest.mark.parametrize("max_retries", [0, 1, 5])
async def test_the_number_of_retries_is_the_users(both: Both, max_retries: int) -> None:
    server = Server(*[refusal(503)] * 9)
    with pytest.raises(sdk.ServiceUnavailableError):
        await both(server, "research.create", "Why?", client={"max_retries": max_retries})
    assert len(server.requests) == max_retries + 1


async def test_each_failure_sets_the_next_wait(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float | None, int]] = []

    def wait_s(_: sdk.RetryPolicy, failure: sdk.APIConnectionError | sdk.APIStatusError | None, attempt: int) -> float:
        seen.append((getattr(failure, "retry_after_s", None), attempt))
        return 0.0

    monkeypatch.setattr(sdk.RetryPolicy, "wait_s", wait_s)
    await both(Server(refusal(429, **{"retry-after": "7"}), DROPPED, ok(RUN)), "research.create", "Why?")
    assert seen == [(7.0, 1), (None, 2)]
    assert sdk.RetryPolicy().longest_retry_after_s == 60.0


def _is_busy(failure: sdk.APIConnectionError | sdk.APIStatusError) -> bool:
    return isinstance(failure, sdk.APIStatusError) and failure.status_code == 503


@pytest.mark.parametrize(("failure", "num_requests"), [(refusal(503), 3), (refusal(500), 1), (REFUSED, 1)])
async def test_what_may_pass_is_the_users_to_say(
    both: Both, failure: httpx.Response | Exception, num_requests: int
) -> None:
    server = Server(*[failure] * num_requests)
    policy = sdk.RetryPolicy(first_wait_s=0.0, may_pass=_is_busy)
    with pytest.raises((sdk.APIStatusError, sdk.APIConnectionError)):
        await both(server, "research.create", "Why?", client={"retry_policy": policy})
    assert len(server.requests) == num_requests


def test_changed_options_keep_the_retry_policy() -> None:
    server = Server(refusal(500), refusal(500), ok(MODELS))
    client = server.client(retry_policy=sdk.RetryPolicy(may_pass=_is_busy))
    with pytest.raises(sdk.InternalServerError):
        client.with_options(timeout=1.0).models.list()
    client.with_options(retry_policy=sdk.RetryPolicy(first_wait_s=0.0)).models.list()
    assert len(server.requests) == 3


async def test_an_error_body_that_breaks_is_a_lost_connection(both: Both) -> None:
    broken = stream(b"half", error=httpx.ReadError("reset"))
    broken.status_code = 400
    server = Server(broken, ok(RUN))
    assert (await both(server, "research.create", "Why?")).id == RUN_ID


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHR1_URL", "https://far:9/v1/")
    monkeypatch.setenv("SEARCHR1_BASE_URL", "https://old")
    monkeypatch.setenv("SEARCHR1_API_KEY", "from-env")
    cases: list[tuple[dict[str, Any], str, str | None]] = [
        ({}, "https://far:9/v1/models", "Bearer from-env"),
        ({"base_url": "http://near", "api_key": "given"}, "http://near/v1/models", "Bearer given"),
        ({"api_key": ""}, "https://far:9/v1/models", None),
    ]
    for options, url, key in cases:
        server = Server(ok(MODELS))
        http = httpx.Client(transport=httpx.MockTransport(server))
        sdk.SearchR1(http_client=http, **options).models.list()
        assert str(server.requests[0].url) == url
        assert server.requests[0].headers.get("authorization") == key


def test_without_an_environment_the_server_is_on_this_machine() -> None:
    with sdk.SearchR1() as client:
        assert client.base_url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://host:port", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(sdk.SearchR1Error, match="not a server's address"):
        sdk.SearchR1(base_url=url)
    with pytest.raises(sdk.SearchR1Error, match="not a server's address"):
        sdk.AsyncSearchR1(base_url=url)


@pytest.mark.parametrize("key", ["schlüssel", "two\r\nlines", "\x00"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(sdk.SearchR1Error, match="can't be sent") as caught:
        sdk.SearchR1(api_key=key)
    assert key not in str(caught.value)


def test_a_clients_text_shows_no_key() -> None:
    with sdk.SearchR1(base_url="http://h", api_key="secret") as client:
        assert repr(client) == "SearchR1(base_url='http://h')"


def test_options_can_be_changed_for_some_calls() -> None:
    server = Server(ok(MODELS), ok(MODELS), ok(MODELS))
    client = server.client(api_key="k1", default_headers={"x-a": "1", "x-b": "1"})
    other = client.with_options(api_key="k2", default_headers={"x-b": "2"}, timeout=3.0, max_retries=0)
    other.models.list()
    client.models.list()
    other.with_options(api_key="").models.list()
    changed, plain, keyless = server.requests
    assert "authorization" not in keyless.headers
    assert [changed.headers[name] for name in ("authorization", "x-a", "x-b")] == ["Bearer k2", "1", "2"]
    assert [plain.headers[name] for name in ("authorization", "x-a", "x-b")] == ["Bearer k1", "1", "1"]
    assert changed.extensions["timeout"]["read"] == 3.0
    assert plain.headers["user-agent"] == f"searchr1-client/{sdk.__version__}"


def test_only_a_client_that_opened_its_connections_closes_them() -> None:
    mine = httpx.Client()
    with sdk.SearchR1(http_client=mine):
        pass
    assert not mine.is_closed
    mine.close()
    with sdk.SearchR1() as client:
        http = client._transport.http
        client.with_options(timeout=1.0).close()
        assert not http.is_closed
    assert http.is_closed


async def test_an_async_client_closes_its_connections() -> None:
    async with sdk.AsyncSearchR1() as client:
        http = client._transport.http
        await client.with_options(timeout=1.0).close()
        assert not http.is_closed
    assert http.is_closed


def test_an_answer_is_awaited_longer_than_silence_in_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(ok(RUN), stream(sse(*EVENTS)))
    monkeypatch.setattr(httpx, "Client", partial(httpx.Client, transport=httpx.MockTransport(server)))
    client = sdk.SearchR1(base_url="http://h")
    client.research.create("Why?")
    with client.research.stream("Why?") as streaming:
        streaming.get_final_run()
    waits = [request.extensions["timeout"] for request in server.requests]
    assert [(wait["connect"], wait["read"]) for wait in waits] == [
        (CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S),
        (CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S),
    ]


def test_an_own_http_clients_timeout_counts() -> None:
    server = Server(ok(RUN), ok(RUN), ok(RUN))
    http = httpx.Client(transport=httpx.MockTransport(server), timeout=77.0)
    client = sdk.SearchR1(base_url="http://h", http_client=http)
    client.research.create("Why?")
    client.with_options(timeout=None).research.create("Why?")
    client.with_options(timeout=httpx.Timeout(5.0)).research.create("Why?")
    assert [request.extensions["timeout"]["read"] for request in server.requests] == [77.0, None, 5.0]


async def test_a_cancelled_call_is_not_tried_again() -> None:
    calls = 0

    async def hang(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()
        raise AssertionError

    http = httpx.AsyncClient(transport=httpx.MockTransport(hang))
    client = sdk.AsyncSearchR1(base_url="http://h", http_client=http)
    task = asyncio.create_task(client.research.create("Why?"))
    while not calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


OF_NEW_RUNS = [("research.create", "Why?"), ("research.replay", RUN_ID)]


def keys_sent(server: Server) -> list[str]:
    return [request.headers["idempotency-key"] for request in server.requests]


@pytest.mark.parametrize(("path", "what"), OF_NEW_RUNS)
async def test_a_call_has_one_key_over_all_its_retries(both: Both, path: str, what: str) -> None:
    server = Server(REFUSED, refusal(503), ok(RUN), ok(RUN))
    await both(server, path, what)
    await both(server, path, what)
    first, *again, other = keys_sent(server)
    assert set(again) == {first}
    assert other != first
    assert uuid.UUID(first).version == 4


@pytest.mark.parametrize(("path", "what"), OF_NEW_RUNS)
async def test_a_key_of_the_callers_own_is_sent(both: Both, path: str, what: str) -> None:
    server = Server(refusal(500), ok(RUN))
    await both(server, path, what, idempotency_key="order-17")
    assert keys_sent(server) == ["order-17"] * 2
    assert b"order-17" not in server.requests[0].content


@pytest.mark.parametrize(("path", "what"), OF_NEW_RUNS)
@pytest.mark.parametrize("key", ["", "k" * 256, "clé", "a\nb", "a\r\nx: y", "\x7f", "k\n"])
async def test_a_malformed_key_is_not_sent(both: Both, path: str, what: str, key: str) -> None:
    server = Server()
    with pytest.raises(sdk.InvalidArgumentError, match="idempotency key"):
        await both(server, path, what, idempotency_key=key)
    assert server.requests == []


async def test_calls_that_start_no_run_have_no_key(both: Both) -> None:
    server = Server(ok(RUN), ok(MODELS))
    await both(server, "research.retrieve", RUN_ID)
    await both(server, "models.list")
    assert not any("idempotency-key" in request.headers for request in server.requests)
