"""Whatever fails, and in whichever method: the error is one of the SDK's."""

import inspect
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import searchr1_client as sdk
from tests.client.conftest import RUN_ID

AWAY = "http://gateway.test:8000"
CALLS: dict[str, tuple[Any, ...]] = {
    "models.list": (),
    "research.create": ("Why?",),
    "research.replay": (RUN_ID,),
    "research.retrieve": (RUN_ID,),
    "research.cancel": (RUN_ID,),
    "research.delete": (RUN_ID,),
    "research.list": (),
    "research.stream": ("Why?",),
    "research.stream_replay": (RUN_ID,),
    "research.resume": (RUN_ID,),
}


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off."""

    def __iter__(self) -> Any:
        yield b"id: 0\n"
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        yield b"id: 0\n"
        raise httpx.ReadError("reset")


def raising(error: Exception) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    return answer


def answering(*args: Any, **options: Any) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: httpx.Response(*args, **options)


FAILURES: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "nobody listens": raising(httpx.ConnectError("refused")),
    "no such host": raising(httpx.ConnectError("[Errno -2] Name or service not known")),
    "no route in time": raising(httpx.ConnectTimeout("slow")),
    "no answer in time": raising(httpx.ReadTimeout("slow")),
    "no place in the pool": raising(httpx.PoolTimeout("busy")),
    "another protocol": raising(httpx.RemoteProtocolError("illegal status line")),
    "a proxy that refuses": raising(httpx.ProxyError("403")),
    "a certificate that nobody trusts": raising(httpx.ConnectError("CERTIFICATE_VERIFY_FAILED")),
    "a page": answering(200, html="<html>hello</html>"),
    "nothing": answering(200),
    "json of somebody else": answering(200, json={"hello": 1}),
    "deep json": answering(200, content=b"[" * 100_000),
    "deep json and 400": answering(400, content=b"[" * 100_000),
    "no gzip": answering(200, stream=httpx.ByteStream(b"plain"), headers={"content-encoding": "gzip"}),
    "a body that breaks": lambda _: httpx.Response(200, stream=Broken(), headers={"content-type": "text/event-stream"}),
    "a redirect": answering(307, headers={"location": "http://elsewhere.test/"}),
    "a teapot": answering(418, text="\x1b[2Jteapot"),
    "a strange charset": answering(500, content=b"\xff\xfe", headers={"content-type": "text/plain; charset=klingon"}),
}


def method(client: Any, path: str) -> Callable[..., Any]:
    for name in path.split("."):
        client = getattr(client, name)
    return client  # type: ignore[no-any-return]


def sync_call(client: sdk.SearchR1, path: str, *args: Any, **options: Any) -> None:
    found = method(client, path)(*args, **options)
    if isinstance(found, sdk.ResearchStream):
        with found as stream:
            stream.get_final_run()


async def async_call(client: sdk.AsyncSearchR1, path: str, *args: Any, **options: Any) -> None:
    found = method(client, path)(*args, **options)
    if isinstance(found, sdk.AsyncResearchStream):
        async with found as stream:
            await stream.get_final_run()
    else:
        await found


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> sdk.SearchR1:
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return sdk.SearchR1(base_url=AWAY, http_client=http, max_retries=0)


def async_client_of(answer: Callable[[httpx.Request], httpx.Response]) -> sdk.AsyncSearchR1:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return sdk.AsyncSearchR1(base_url=AWAY, http_client=http, max_retries=0)


def test_every_public_method_is_called_here() -> None:
    client = client_of(answering(200))
    for name in ("research", "models"):
        public = [one for one, _ in inspect.getmembers(getattr(client, name), inspect.ismethod) if one[0] != "_"]
        assert {f"{name}.{one}" for one in public} <= CALLS.keys()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("path", CALLS)
async def test_every_failure_of_every_method_is_an_error_of_ours(path: str, failure: str) -> None:
    answer = FAILURES[failure]
    with pytest.raises(sdk.SearchR1Error) as sync_caught:
        sync_call(client_of(answer), path, *CALLS[path])
    with pytest.raises(sdk.SearchR1Error) as async_caught:
        await async_call(async_client_of(answer), path, *CALLS[path])
    assert type(sync_caught.value) is type(async_caught.value)
    assert str(sync_caught.value)


@pytest.mark.parametrize("path", CALLS)
async def test_a_closed_client_says_so(path: str) -> None:
    sync_client, async_client = sdk.SearchR1(base_url=AWAY), sdk.AsyncSearchR1(base_url=AWAY)
    sync_client.close()
    await async_client.close()
    with pytest.raises(sdk.ClientClosedError, match="client is closed"):
        sync_call(sync_client, path, *CALLS[path])
    with pytest.raises(sdk.ClientClosedError, match="client is closed"):
        await async_call(async_client, path, *CALLS[path])


@pytest.mark.parametrize(
    ("path", "args", "options"),
    [
        ("research.create", ("Why?",), {"temperature": float("nan")}),
        ("research.create", ("lone \ud800",), {}),
        ("research.create", (object(),), {}),
        ("research.retrieve", ("../models",), {}),
        ("research.cancel", ("",), {}),
        ("research.resume", ("run 1",), {}),
        ("research.delete", ("a/b",), {}),
    ],
)
async def test_what_cannot_be_sent_is_named_before_it_is(path: str, args: Any, options: Any) -> None:
    with pytest.raises(sdk.InvalidArgumentError):
        sync_call(client_of(answering(200)), path, *args, **options)
    with pytest.raises(ValueError):  # noqa: PT011 - it is one too, for those who look for it
        await async_call(async_client_of(answering(200)), path, *args, **options)


PROXIES = [
    ("ALL_PROXY", "socks5://127.0.0.1:1", "httpx"),
    ("all_proxy", "socks://u:secret@127.0.0.1:1/", "proxy settings"),
    ("HTTP_PROXY", "ftp://u:secret@127.0.0.1:1", "proxy settings"),
    ("HTTPS_PROXY", "http://u:secret@h:port", "proxy settings"),
    ("NO_PROXY", "localhost,::1,fe80::/10", "proxy settings"),
    ("SSL_CERT_FILE", "/nonexistent/secret.pem", "certificates"),
]


@pytest.mark.parametrize(("variable", "value", "says"), PROXIES)
def test_an_environment_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    if variable.upper() == "NO_PROXY":
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    for make in (sdk.SearchR1, sdk.AsyncSearchR1, sdk.default_http_client, sdk.default_async_http_client):
        with pytest.raises(sdk.APIConnectionError, match=says) as caught:
            make(base_url=AWAY)
        assert variable in str(caught.value)
        assert "secret" not in str(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9/v1", "http://[::1]:9"])
@pytest.mark.parametrize(("variable", "value", "_"), PROXIES)
def test_a_server_on_this_machine_needs_no_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, _: str, url: str
) -> None:
    monkeypatch.setenv(variable, value)
    with sdk.SearchR1(base_url=url, max_retries=0) as client, pytest.raises(sdk.APIConnectionError, match=r"no answer"):
        client.models.list()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gateway",
        "ftp://h",
        "http://",
        "http://[::1",
        "http://h:port",
        "http://h:99999",
        "http://a b/",
        "http://\x00",
    ],
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    for make in (sdk.SearchR1, sdk.AsyncSearchR1):
        with pytest.raises(sdk.SearchR1Error, match="is not a server's address"):
            make(base_url=url)
