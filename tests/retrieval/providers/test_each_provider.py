"""Behavior of single providers."""

from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.providers.tavily import TavilyProvider
from searchr1.retrieval.registry import open_provider, parse_spec
from tests.retrieval.providers.cases import KEY, WEB_CASE, search, status
from tests.retrieval.providers.site import serving

AREA = [{"label": "Area", "value": "1"}]
TAVILY, SEARXNG, BRAVE, SERPER, EXA, MEDIAWIKI = (
    WEB_CASE[name] for name in ("tavily", "searxng", "brave", "serper", "exa", "mediawiki")
)


def test_tavily_without_a_key_is_refused_and_not_called_anonymously() -> None:
    with pytest.raises(ConfigurationError, match="needs a key"):
        TavilyProvider(" ")


async def test_tavilys_limits_are_told_apart() -> None:
    plan, _ = await search(TAVILY, status(432))
    spending, _ = await search(TAVILY, status(433))
    assert isinstance(plan, SearchFailed)
    assert isinstance(spending, SearchFailed)
    assert "plan" in plan.message
    assert "spending" in spending.message


async def test_a_searxng_without_json_says_what_to_set() -> None:
    outcome, _ = await search(SEARXNG, status(403))
    assert isinstance(outcome, SearchFailed)
    assert "search.formats" in outcome.message


async def test_a_searxng_whose_engines_are_silent_has_failed() -> None:
    body = {"results": [], "unresponsive_engines": [["google", "timeout"], ["bing", "CAPTCHA"]]}
    outcome, _ = await search(SEARXNG, lambda _: web.json_response(body))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"
    assert "2 of its engines" in outcome.message


async def test_braves_markup_and_query_limits() -> None:
    row = {"title": "<strong>Mali</strong> &amp; co", "url": "https://example.org", "description": "x &lt;b&gt;"}
    body = {"web": {"results": [row | {"extra_snippets": ["<b>more</b>."]}]}}
    async with serving(lambda _: web.json_response(body)) as site, aclosing(BRAVE.open(site.url)) as provider:
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
    outcome, _ = await search(SERPER, lambda _: web.json_response(body))
    assert isinstance(outcome, Found)
    assert [p.text for p in outcome.passages] == ["CFA franc", "A country.", "s"]


async def test_exas_highlights() -> None:
    body = {"results": [{"title": "T", "url": "https://example.org", "highlights": ["one.", "two."]}]}
    outcome, site = await search(EXA, lambda _: web.json_response(body), highlights=True)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].text == "one. two."
    assert site.requests[0][3]["contents"] == {"highlights": True}


@pytest.mark.parametrize("key", ["", " "])
def test_tavily_takes_no_key_from_the_environment(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    with pytest.raises(ConfigurationError, match="needs a key"):
        TavilyProvider(key)


async def test_tavily_is_asked_for_what_was_set_and_nothing_more() -> None:
    options: dict[str, Any] = {
        "depth": "advanced",
        "topic": "news",
        "include_domains": ["a.org"],
        "exclude_domains": ["b.org"],
    }
    _, site = await search(TAVILY, lambda _: web.json_response({"results": []}), k=50, **options)
    [(_, _, headers, asked)] = site.requests
    assert asked == {
        "query": "currency of Mali",
        "search_depth": "advanced",
        "topic": "news",
        "include_domains": ["a.org"],
        "exclude_domains": ["b.org"],
        "max_results": 20,
    }
    assert "X-Tavily-Access-Mode" not in headers


@pytest.mark.parametrize(("options", "sent"), [({}, None), ({"extra_snippets": True}, "true")])
async def test_brave_is_asked_for_extra_snippets_only_where_wanted(options: dict[str, Any], sent: str | None) -> None:
    _, site = await search(BRAVE, lambda _: web.json_response({}), k=50, **options)
    [(*_, asked)] = site.requests
    assert asked.get("extra_snippets") == sent
    assert asked["count"] == "20"


async def test_mediawiki_is_asked_for_introductions_in_one_call_by_name() -> None:
    query = "w" * 290 + " and many more"
    nothing = status(200, '{"batchcomplete": true}')
    async with serving(nothing) as site, aclosing(MEDIAWIKI.open(site.url, contact="a@b.org")) as one:
        assert await one.search(query, 50, 20) == Found((), provider="mediawiki")
    [(_, _, headers, asked)] = site.requests
    assert headers["User-Agent"] == "searchr1 (a@b.org)"
    assert asked == {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "generator": "search",
        "gsrsearch": "w" * 290 + " and many",
        "gsrlimit": "20",
        "prop": "extracts|info",
        "inprop": "url",
        "exintro": "1",
        "explaintext": "1",
        "exlimit": "max",
    }


@pytest.mark.parametrize(
    ("code", "kind"), [("ratelimited", "rate_limited"), ("maxlag", "unavailable"), ("readapidenied", "rejected")]
)
async def test_mediawikis_errors_come_with_a_status_of_200(code: str, kind: str) -> None:
    body = {"error": {"code": code, "info": f"some words, and {KEY}"}}
    outcome, _ = await search(MEDIAWIKI, lambda _: web.json_response(body))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == kind
    assert code in outcome.message
    assert KEY not in outcome.message


async def test_a_wiki_without_text_extracts_says_what_it_lacks() -> None:
    pages = [{"pageid": 1, "ns": 0, "title": "Mali", "index": 1, "fullurl": "https://example.org/Mali"}]
    body = {"warnings": {}, "batchcomplete": True, "query": {"pages": pages}}
    outcome, _ = await search(MEDIAWIKI, lambda _: web.json_response(body))
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, "TextExtracts" in outcome.message) == ("bad_response", True)


async def test_an_answer_that_is_not_mediawikis_is_no_empty_result() -> None:
    outcome, _ = await search(MEDIAWIKI, lambda _: web.json_response({}))
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"


def test_a_contact_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="contact"):
        MEDIAWIKI.open("http://127.0.0.1:9", contact="a\nX-Other: 1")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "/",
        "/search",
        "/search/",
        "/search?q=<query>",
        "/search?format=json&q=%s",
        "/search?q={q}&language=fr",
        "?q=",
    ],
)
async def test_a_searxng_is_asked_however_its_address_is_written(written: str) -> None:
    async with serving(lambda _: web.json_response({"results": [{"title": "T", "content": "x"}]})) as site:
        spec = parse_spec(f"searxng:{site.url}{written}")
        async with open_provider(spec) as provider:
            outcome = await provider.search("what?", 3, 20)
    assert isinstance(outcome, Found)
    [(method, path, _, asked)] = site.requests
    expected = {"q": "what?", "format": "json"} | ({"language": "fr"} if "fr" in written else {})
    assert (method, path, asked) == ("GET", "/search", expected)


async def test_a_searxng_below_a_path_and_an_option_it_does_not_have() -> None:
    async with (
        serving(lambda _: web.json_response({"results": []})) as site,
        open_provider(parse_spec(f"searxng:{site.url}/searx/search?q=<query>")) as provider,
    ):
        await provider.search("q", 3, 20)
    assert site.requests[0][1] == "/searx/search"
    with pytest.raises(ConfigurationError, match="has no option 'enginez'"):
        async with open_provider(parse_spec("searxng:http://127.0.0.1:1/search?enginez=x")):
            pass


@pytest.mark.parametrize(
    ("more", "contents", "url"),
    [
        ({"answers": ["42 is the answer."]}, '""\n42 is the answer.', None),
        ({"answers": [{"answer": "42", "url": "https://x.test/"}]}, '""\n42', "https://x.test/"),
        (
            {"infoboxes": [{"infobox": "Mali", "content": "A country.", "urls": [{"url": "https://x.test/m"}]}]},
            '"Mali"\nA country.',
            "https://x.test/m",
        ),
        (
            {"infoboxes": [{"infobox": "Mali", "id": "https://x.test/", "attributes": AREA}]},
            '"Mali"\nArea: 1.',
            "https://x.test/",
        ),
        ({"infoboxes": [{"infobox": "Mali", "content": "A country."}], "answers": [7, {}]}, '"Mali"\nA country.', None),
    ],
)
async def test_a_searxng_that_knows_without_pages(more: dict[str, Any], contents: str, url: str | None) -> None:
    outcome, _ = await search(SEARXNG, lambda _: web.json_response({"results": [], **more}))
    assert isinstance(outcome, Found)
    assert [(p.contents, p.url) for p in outcome.passages] == [(contents, url)]
    page = {"title": "T", "url": "https://p.test/", "content": "page"}
    outcome, _ = await search(SEARXNG, lambda _: web.json_response({"results": [page], **more}))
    assert isinstance(outcome, Found)
    assert [p.text for p in outcome.passages] == ["page"]
