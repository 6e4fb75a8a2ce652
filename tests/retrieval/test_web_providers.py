"""Every web provider against a local server that speaks its wire format, on real sockets, odd cases included.

To add a provider: one ``Case``. ``body`` writes the given results as the provider's own JSON.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.brave import BraveProvider
from searchr1.retrieval.exa import ExaProvider
from searchr1.retrieval.searxng import SearxngProvider
from searchr1.retrieval.serper import SerperProvider
from searchr1.retrieval.tavily import TavilyProvider

KEY = "sk-very-secret-0123"
Row = tuple[str, Any, str, float | None]
"""Title, URL, text, score."""
ROWS: list[Row] = [
    ("Mali", "https://example.org/mali", "Mali uses the West African CFA franc.", 0.9),
    ("Niger", "https://example.org/niger", "Niger too.", 0.5),
]


def _rows(rows: list[Row], **names: str) -> list[dict[str, Any]]:
    """The rows under the provider's own names; a score that is None is left out."""
    found = []
    for row in rows:
        record = dict(zip(("title", "url", "text", "score"), row, strict=True))
        found.append({names.get(k, k): v for k, v in record.items() if v is not None})
    return found


@dataclass(frozen=True, slots=True)
class Case:
    """One provider."""

    name: str
    open: Callable[..., Any]
    """Takes ``base_url`` and whatever the provider takes."""
    body: Callable[[list[Row]], Any]
    path: str
    method: str
    has_scores: bool
    key_header: str
    key_value: str = KEY


CASES = [
    Case(
        "tavily",
        lambda base_url, **more: TavilyProvider(KEY, base_url=base_url, **more),
        lambda rows: {"query": "q", "results": _rows(rows, text="content"), "response_time": 0.1},
        "/search",
        "POST",
        True,
        "Authorization",
        f"Bearer {KEY}",
    ),
    Case(
        "searxng",
        lambda base_url, **more: SearxngProvider(base_url, api_key=KEY, **more),
        lambda rows: {"query": "q", "results": _rows(rows, text="content"), "unresponsive_engines": []},
        "/search",
        "GET",
        True,
        "Authorization",
        f"Bearer {KEY}",
    ),
    Case(
        "brave",
        lambda base_url, **more: BraveProvider(KEY, base_url=base_url, **more),
        lambda rows: {"type": "search", "web": {"results": _rows(rows, text="description")}},
        "/res/v1/web/search",
        "GET",
        False,
        "X-Subscription-Token",
    ),
    Case(
        "serper",
        lambda base_url, **more: SerperProvider(KEY, base_url=base_url, **more),
        lambda rows: {"searchParameters": {}, "organic": _rows(rows, url="link", text="snippet")},
        "/search",
        "POST",
        False,
        "X-API-KEY",
    ),
    Case(
        "exa",
        lambda base_url, **more: ExaProvider(KEY, base_url=base_url, **more),
        lambda rows: {"requestId": "r", "results": _rows(rows)},
        "/search",
        "POST",
        True,
        "x-api-key",
    ),
]


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@dataclass
class Site:
    """A local server: what it answers, and what it was asked."""

    answer: Callable[[web.Request], Any]
    url: str = ""
    requests: list[tuple[str, str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    num_left: int = 0
    """Requests whose client left before the answer."""


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Any]) -> AsyncIterator[Site]:
    site = Site(answer)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = json.loads(body) if body else dict(request.query)
        site.requests.append((request.method, request.path, dict(request.headers), asked))
        try:
            found = site.answer(request)
            response: web.StreamResponse = await found if asyncio.iscoroutine(found) else found
        except asyncio.CancelledError:
            site.num_left += 1
            raise
        return response

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        host, port = runner.addresses[0][:2]
        site.url = f"http://{host}:{port}"
        yield site
    finally:
        await runner.cleanup()


async def search(
    case: Case, answer: Callable[[web.Request], Any], *, k: int = 3, deadline_s: float = 20, **more: Any
) -> tuple[SearchOutcome, Site]:
    async with serving(answer) as site, aclosing(case.open(site.url, **more)) as provider:
        outcome: SearchOutcome = await provider.search("currency of Mali", k, deadline_s)
    return outcome, site


def status(code: int, text: str = "{}", **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(status=code, text=text, content_type="application/json", headers=headers)


def results(case: Case, rows: list[Row]) -> Callable[[web.Request], web.Response]:
    return lambda _: web.json_response(case.body(rows))


async def test_results_become_passages_in_the_trained_form(case: Case) -> None:
    outcome, site = await search(case, results(case, ROWS))
    assert isinstance(outcome, Found)
    assert outcome.provider == case.name
    first = outcome.passages[0]
    assert first.contents == '"Mali"\nMali uses the West African CFA franc.'
    assert first.url == "https://example.org/mali"
    assert first.score == (0.9 if case.has_scores else None)
    [(method, path, headers, asked)] = site.requests
    assert (method, path) == (case.method, case.path)
    assert headers[case.key_header] == case.key_value
    assert "currency of Mali" in asked.values()


async def test_no_results_are_an_outcome_and_not_a_failure(case: Case) -> None:
    outcome, _ = await search(case, results(case, []))
    assert outcome == Found((), provider=case.name)


async def test_more_results_than_asked_for_are_cut(case: Case) -> None:
    rows: list[Row] = [(f"T{i}", f"https://example.org/{i}", "text", None) for i in range(30)]
    outcome, _ = await search(case, results(case, rows), k=2)
    assert isinstance(outcome, Found)
    assert [p.title for p in outcome.passages] == ['"T0"', '"T1"']


async def test_one_passage_per_page(case: Case) -> None:
    outcome, _ = await search(case, results(case, [ROWS[0], ROWS[0], ROWS[1]]))
    assert isinstance(outcome, Found)
    assert [p.title for p in outcome.passages] == ['"Mali"', '"Niger"']


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://user:pw@example.org/", "data:text/html,x", "//x", 7, None]
)
async def test_a_url_that_is_no_plain_web_address_is_dropped(case: Case, url: Any) -> None:
    outcome, _ = await search(case, results(case, [("T", url, "text", None)]))
    assert isinstance(outcome, Found)
    assert outcome.passages[0].url is None


async def test_long_texts_are_cut_to_whole_sentences(case: Case) -> None:
    text = "First one. Second is 3.5 long! " + "x" * 5000
    outcome, _ = await search(case, results(case, [("T", "https://example.org", text, None)]), max_chars=60)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].text == "First one. Second is 3.5 long!"


async def test_nuls_and_lone_surrogates_are_replaced(case: Case) -> None:
    body = json.dumps(case.body([("T\x00", "https://example.org", "a\x00b\ud800c", None)]))
    outcome, _ = await search(case, status(200, body))
    assert isinstance(outcome, Found)
    assert outcome.passages[0].contents == '"T\ufffd"\na\ufffdb\ufffdc'


async def test_results_of_the_wrong_shape_are_passed_over(case: Case) -> None:
    rows = json.dumps(case.body([ROWS[0]]))
    broken = rows.replace("[{", '[7, null, "x", {"title": 5, "content": [], "description": {}, "text": 1}, {', 1)
    outcome, _ = await search(case, status(200, broken))
    assert isinstance(outcome, Found)
    assert [p.title for p in outcome.passages] == ['"Mali"']


@pytest.mark.parametrize("after", ["7", formatdate(time.time() + 8, usegmt=True)], ids=["seconds", "date"])
async def test_a_429_tells_when_to_come_back(case: Case, after: str) -> None:
    outcome, _ = await search(case, status(429, **{"Retry-After": after}))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "rate_limited"
    assert outcome.retry_after_s is not None
    assert 0 < outcome.retry_after_s <= 8


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        *((code, "rejected") for code in (400, 401, 402, 403, 422, 432, 433)),
        *((code, "unavailable") for code in (500, 503)),
        (504, "timeout"),
        (302, "bad_response"),
    ],
)
async def test_a_status_says_what_kind_of_failure_it_is(case: Case, code: int, kind: str) -> None:
    echoed = json.dumps({"detail": {"error": f"bad key {KEY}"}, "message": KEY})
    outcome, _ = await search(case, status(code, echoed, Location="http://127.0.0.1:9/"))
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, outcome.provider) == (kind, case.name)
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


async def test_half_a_body_is_a_failure(case: Case) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"results": [')
        assert request.transport is not None
        request.transport.close()
        return response

    outcome, _ = await search(case, half)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"


async def test_a_slow_drip_ends_at_the_deadline_and_the_connection_is_let_go(case: Case) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    outcome, _ = await search(case, drip, deadline_s=0.3)
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
        async with asyncio.timeout(10):
            while site.num_left == 0:  # noqa: ASYNC110 (the server has no event for a client that left)
                await asyncio.sleep(0.01)


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


async def test_an_empty_query_is_not_sent(case: Case) -> None:
    async with serving(status(500)) as site, aclosing(case.open(site.url)) as provider:
        assert await provider.search("  ", 3, 20) == Found((), provider=case.name)
        assert await provider.search("q", 0, 20) == Found((), provider=case.name)
        assert site.requests == []


async def test_the_key_is_in_no_log_and_no_repr(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await search(case, status(401))
    assert KEY not in caplog.text
    assert KEY not in repr(case.open("http://127.0.0.1:9"))


def test_tavily_without_a_key_is_refused_and_not_called_anonymously() -> None:
    with pytest.raises(ConfigurationError, match="needs a key"):
        TavilyProvider(" ")


async def test_tavilys_limits_are_told_apart() -> None:
    plan, _ = await search(CASES[0], status(432))
    spending, _ = await search(CASES[0], status(433))
    assert isinstance(plan, SearchFailed)
    assert isinstance(spending, SearchFailed)
    assert "plan" in plan.message
    assert "spending" in spending.message


async def test_a_searxng_without_json_says_what_to_set() -> None:
    outcome, _ = await search(CASES[1], status(403))
    assert isinstance(outcome, SearchFailed)
    assert "search.formats" in outcome.message


async def test_a_searxng_whose_engines_are_silent_has_failed() -> None:
    body = {"results": [], "unresponsive_engines": [["google", "timeout"], ["bing", "CAPTCHA"]]}
    outcome, _ = await search(CASES[1], lambda _: web.json_response(body))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"
    assert "2 of its engines" in outcome.message


async def test_braves_markup_and_query_limits() -> None:
    row = {"title": "<strong>Mali</strong> &amp; co", "url": "https://example.org", "description": "x &lt;b&gt;"}
    body = {"web": {"results": [row | {"extra_snippets": ["<b>more</b>."]}]}}
    async with serving(lambda _: web.json_response(body)) as site, aclosing(CASES[2].open(site.url)) as provider:
        outcome = await provider.search("w " * 70, 3, 20)
        await provider.search("w" * 900, 3, 20)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].contents == '"Mali & co"\nx <b> more.'
    assert [len(asked["q"].split()) for *_, asked in site.requests] == [50, 1]
    assert len(site.requests[1][3]["q"]) == 400


async def test_serpers_boxes_come_first() -> None:
    body = {
        "answerBox": {"title": "Mali currency", "answer": "CFA franc", "link": "https://example.org/a"},
        "knowledgeGraph": {"title": "Mali", "description": "A country.", "descriptionLink": "https://example.org/b"},
        "organic": [{"title": "T", "link": "https://example.org/c", "snippet": "s"}],
    }
    outcome, _ = await search(CASES[3], lambda _: web.json_response(body))
    assert isinstance(outcome, Found)
    assert [p.text for p in outcome.passages] == ["CFA franc", "A country.", "s"]


async def test_exas_highlights() -> None:
    body = {"results": [{"title": "T", "url": "https://example.org", "highlights": ["one.", "two."]}]}
    outcome, site = await search(CASES[4], lambda _: web.json_response(body), highlights=True)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].text == "one. two."
    assert site.requests[0][3]["contents"] == {"highlights": True}
