"""Servers that answer oddly, late, or not at all, behind every retriever over HTTP."""

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from email.utils import formatdate

import httpx
import pytest
from aiohttp import web

from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.registry import providers
from tests.retrieval.providers.cases import KEY, OTHER_CASES, ROWS, WEB_CASES, Case, Row, results, search, status
from tests.retrieval.providers.site import Site, serving


@pytest.fixture(params=[*WEB_CASES, *OTHER_CASES], ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


def test_every_provider_has_a_case() -> None:
    """Elasticsearch is OpenSearch's class under its own name; Qdrant goes through its own client, in test_qdrant.py."""
    cases = {case.name for case in (*WEB_CASES, *OTHER_CASES)}
    assert {one.name for one in providers().values() if not one.is_local} == {*cases, "elasticsearch", "qdrant"}


async def left(site: Site) -> None:
    """Wait until the site saw its client leave."""
    async with asyncio.timeout(10):
        while site.num_left == 0:  # noqa: ASYNC110 (the server has no event for a client that left)
            await asyncio.sleep(0.01)


async def test_more_results_than_asked_for_are_cut(case: Case) -> None:
    rows: list[Row] = [(f"T{i}", f"https://example.org/{i}", "text", None) for i in range(30)]
    outcome, _ = await search(case, results(case, rows), k=2)
    assert isinstance(outcome, Found)
    assert [p.title.strip('"') for p in outcome.passages] == ["T0", "T1"]


@pytest.mark.parametrize("is_date", [False, True], ids=["seconds", "date"])
async def test_a_429_tells_when_to_come_back(case: Case, is_date: bool) -> None:
    after = formatdate(time.time() + 3600, usegmt=True) if is_date else "3600"
    outcome, _ = await search(case, status(429, **{"Retry-After": after}))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "rate_limited"
    assert outcome.retry_after_s is not None
    assert 3000 < outcome.retry_after_s <= 3600


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "rejected") for code in (400, 401, 402, 403, 422, 432, 433)),
        *((code, "unavailable") for code in (500, 503)),
        *((code, "timeout") for code in (408, 504)),
        (302, "bad_response"),
    ],
)
async def test_a_status_says_what_kind_of_failure_it_is(case: Case, code: int, kind: str) -> None:
    echoed = json.dumps({"detail": {"error": f"bad key {KEY}"}, "message": KEY})
    outcome, _ = await search(case, status(code, echoed, Location="http://127.0.0.1:9/"))
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, outcome.provider, outcome.status) == (kind, case.provider, code)
    assert f"HTTP {code}" in outcome.message
    assert KEY not in outcome.message


@pytest.mark.parametrize(
    "body", ["<html>hi</html>", "", "[1]", '"x"', "null", "[" * 100_000, '{"results": 5, "organic": 5}']
)
async def test_a_body_that_is_not_the_format_is_a_bad_response(case: Case, body: str) -> None:
    outcome, _ = await search(case, status(200, body))
    if case.name == "brave" and body.startswith("{"):
        assert outcome == Found((), provider="brave")  # A web section that is left out is an empty one.
        return
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"


async def test_a_huge_body_is_not_read_to_its_end(case: Case) -> None:
    outcome, _ = await search(case, status(200, "x" * 300_000), max_body_bytes=10_000)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"
    assert "10000 bytes" in outcome.message


def half_a_body(code: int, **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        sent = {"Content-Length": "1000", "Content-Type": "application/json", **headers}
        response = web.StreamResponse(status=code, headers=sent)
        await response.prepare(request)
        await response.write(b'{"results": [')
        assert request.transport is not None
        request.transport.close()
        return response

    return answer


async def test_half_a_body_is_a_failure(case: Case) -> None:
    outcome, _ = await search(case, half_a_body(200))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"


async def test_a_refusal_is_heard_though_its_body_breaks_off(case: Case) -> None:
    outcome, _ = await search(case, half_a_body(429, **{"Retry-After": "7"}))
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, outcome.retry_after_s) == ("rate_limited", 7)


async def test_a_slow_drip_ends_at_the_deadline_and_the_server_is_let_go(case: Case) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    async with serving(drip) as site, aclosing(case.open(site.url)) as provider:
        outcome = await provider.search("q", 3, 0.3)
        await left(site)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"


async def test_cancelling_lets_the_server_go(case: Case) -> None:
    asked = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    async with serving(hang) as site, aclosing(case.open(site.url)) as provider:
        searching = asyncio.create_task(provider.search("q", 3, 60))
        await asked.wait()
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        await left(site)


async def test_nobody_there_is_unavailable(case: Case) -> None:
    async with serving(status(200)) as site:
        url = site.url
    async with aclosing(case.open(url)) as provider:
        outcome = await provider.search("q", 3, 20)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"


async def test_a_closed_provider_says_so(case: Case) -> None:
    provider = case.open("http://127.0.0.1:9")
    await provider.aclose()
    outcome = await provider.search("q", 3, 20)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"


async def test_ten_megabytes_are_refused_without_being_asked_to(case: Case) -> None:
    outcome, _ = await search(case, results(case, [("T", "https://example.org", "x" * 10_000_000, None)]))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"
    assert "bytes" in outcome.message


async def test_a_small_body_that_unpacks_to_a_huge_one_is_refused(case: Case) -> None:
    packed = gzip.compress(json.dumps(case.body([("T", "https://example.org", "x" * 3_000_000, None)])).encode())
    assert len(packed) < 10_000
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    outcome, _ = await search(case, lambda _: web.Response(body=packed, headers=headers), max_body_bytes=100_000)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"
    assert "100000 bytes" in outcome.message


async def test_a_packed_body_is_read(case: Case) -> None:
    packed = gzip.compress(json.dumps(case.body(ROWS)).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    outcome, _ = await search(case, lambda _: web.Response(body=packed, headers=headers))
    assert isinstance(outcome, Found)
    assert len(outcome.passages) == 2


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_passed_deadline_is_a_timeout(case: Case, deadline_s: float) -> None:
    outcome, _ = await search(case, results(case, ROWS), deadline_s=deadline_s)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"


async def test_a_search_without_a_deadline_is_answered(case: Case) -> None:
    outcome, _ = await search(case, results(case, ROWS), deadline_s=float("inf"))
    assert isinstance(outcome, Found)


@pytest.mark.parametrize(
    "case", [case for case in [*WEB_CASES, *OTHER_CASES] if case.takes_client], ids=lambda case: case.name
)
async def test_a_cancelled_search_gives_its_connection_back(case: Case) -> None:
    asked = asyncio.Event()

    async def hang_once(_: web.Request) -> web.Response:
        if asked.is_set():
            return web.json_response(case.body(ROWS))
        asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        serving(hang_once) as site,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=1), trust_env=False) as client,
        aclosing(case.open(site.url, client=client)) as provider,
    ):
        searching = asyncio.create_task(provider.search("q", 3, 60))
        await asked.wait()
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        assert isinstance(await provider.search("q", 3, 20), Found)
        await provider.aclose()
        assert not client.is_closed
