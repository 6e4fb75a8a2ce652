"""Results of every web provider as passages in the trained form; their keys, which nobody gets to see."""

import json
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found, SearchFailed
from tests.retrieval.providers.cases import KEY, ROWS, WEB_CASES, Case, results, search, status
from tests.retrieval.providers.site import serving


@pytest.fixture(params=WEB_CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


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


async def test_an_empty_query_is_not_sent(case: Case) -> None:
    async with serving(status(500)) as site, aclosing(case.open(site.url)) as provider:
        assert await provider.search("  ", 3, 20) == Found((), provider=case.name)
        assert await provider.search("q", 0, 20) == Found((), provider=case.name)
        assert site.requests == []


@pytest.mark.parametrize("padded", [f"{KEY}\n", f" {KEY} ", f"\t{KEY}\r\n"])
async def test_white_space_around_a_key_is_not_part_of_it(case: Case, padded: str) -> None:
    async with serving(results(case, ROWS)) as site, aclosing(case.open(site.url, key=padded)) as provider:
        assert isinstance(await provider.search("q", 3, 20), Found)
    [(_, _, headers, _)] = site.requests
    assert headers[case.key_header] == case.key_value


@pytest.mark.parametrize("key", ["  ", f"{KEY}\x00", f"{KEY}é", f"{KEY}\nX-Other: 1", "\n"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_told(case: Case, key: str) -> None:
    with pytest.raises(ConfigurationError, match="key") as refused:
        case.open("http://127.0.0.1:9", key=key)
    assert KEY not in str(refused.value)
    assert refused.value.__context__ is None


@pytest.mark.parametrize(
    "answer",
    [status(401, KEY), status(429), status(500, KEY), status(200, f"<html>{KEY}"), status(200, "x" * 50_000)],
    ids=["refused", "limited", "broken", "html", "huge"],
)
async def test_the_key_is_in_no_outcome_log_or_repr(
    case: Case, answer: Callable[[web.Request], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outcome, _ = await search(case, answer, max_body_bytes=10_000)
    assert isinstance(outcome, SearchFailed)
    provider = case.open("http://127.0.0.1:9")
    nobody = await provider.search("q", 3, 20)
    await provider.aclose()
    assert caplog.records
    assert KEY not in caplog.text + repr(outcome) + repr(nobody) + repr(provider)
