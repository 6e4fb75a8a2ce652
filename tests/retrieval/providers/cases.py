"""One ``Case`` a provider: how it is opened, and its answers on the wire.

To add a provider: one row in ``WEB_CASES``, or in ``OTHER_CASES`` for a retriever that is no web provider and answers
to ``test_odd_answers.py`` alone. ``body`` writes the given rows as the provider's own JSON.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from searchr1.retrieval.base import SearchOutcome
from searchr1.retrieval.providers.brave import BraveProvider
from searchr1.retrieval.providers.exa import ExaProvider
from searchr1.retrieval.providers.mediawiki import MediaWikiProvider
from searchr1.retrieval.providers.opensearch import OpenSearchRetriever
from searchr1.retrieval.providers.retrieve import RetrieveClient
from searchr1.retrieval.providers.searxng import SearxngProvider
from searchr1.retrieval.providers.serper import SerperProvider
from searchr1.retrieval.providers.tavily import TavilyProvider
from tests.retrieval.providers.site import Site, serving

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
    """Takes ``base_url``, ``key`` and the provider's options."""
    body: Callable[[list[Row]], Any]
    path: str
    method: str
    has_scores: bool
    key_header: str
    key_value: str = KEY
    takes_client: bool = True
    says_provider: bool = True
    """False for a provider whose outcomes name nobody."""

    @property
    def provider(self) -> str:
        """Name of the provider in its outcomes."""
        return self.name if self.says_provider else ""


WEB_CASES = [
    Case(
        "tavily",
        lambda base_url, key=KEY, **more: TavilyProvider(key, base_url=base_url, **more),
        lambda rows: {"query": "q", "results": _rows(rows, text="content"), "response_time": 0.1},
        "/search",
        "POST",
        True,
        "Authorization",
        f"Bearer {KEY}",
        takes_client=False,
    ),
    Case(
        "searxng",
        lambda base_url, key=KEY, **more: SearxngProvider(base_url, api_key=key, **more),
        lambda rows: {"query": "q", "results": _rows(rows, text="content"), "unresponsive_engines": []},
        "/search",
        "GET",
        True,
        "Authorization",
        f"Bearer {KEY}",
    ),
    Case(
        "brave",
        lambda base_url, key=KEY, **more: BraveProvider(key, base_url=base_url, **more),
        lambda rows: {"type": "search", "web": {"results": _rows(rows, text="description")}},
        "/res/v1/web/search",
        "GET",
        False,
        "X-Subscription-Token",
    ),
    Case(
        "serper",
        lambda base_url, key=KEY, **more: SerperProvider(key, base_url=base_url, **more),
        lambda rows: {"searchParameters": {}, "organic": _rows(rows, url="link", text="snippet")},
        "/search",
        "POST",
        False,
        "X-API-KEY",
    ),
    Case(
        "exa",
        lambda base_url, key=KEY, **more: ExaProvider(key, base_url=base_url, **more),
        lambda rows: {"requestId": "r", "results": _rows(rows)},
        "/search",
        "POST",
        True,
        "x-api-key",
    ),
    Case(
        "mediawiki",
        lambda base_url, key=KEY, **more: MediaWikiProvider(f"{base_url}/w/api.php", api_key=key, **more),
        lambda rows: {
            "batchcomplete": True,
            "query": {  # in no order, as MediaWiki gives them
                "pages": [
                    {"pageid": 7 + index, "ns": 0, "index": index, **page}
                    for index, page in enumerate(_rows(rows, url="fullurl", text="extract"), start=1)
                ][::-1]
            },
        },
        "/w/api.php",
        "GET",
        False,
        "Authorization",
        f"Bearer {KEY}",
    ),
]
WEB_CASE = {case.name: case for case in WEB_CASES}

OTHER_CASES = [
    Case(
        "retrieve",
        lambda base_url, key=KEY, **more: RetrieveClient(f"{base_url}/retrieve", api_key=key, **more),
        lambda rows: {"result": [[{"document": {"contents": f"{title}\n{text}"}} for title, _, text, _ in rows]]},
        "/retrieve",
        "POST",
        True,
        "Authorization",
        f"Bearer {KEY}",
        says_provider=False,
    ),
    Case(
        "opensearch",
        lambda base_url, key=KEY, **more: OpenSearchRetriever(base_url, "wiki", api_key=key, **more),
        lambda rows: {
            "timed_out": False,
            "_shards": {"total": 1, "successful": 1, "failed": 0},
            "hits": {"hits": [{"_id": row["url"], "_score": 1.0, "_source": row} for row in _rows(rows)]},
        },
        "/wiki/_search",
        "POST",
        True,
        "Authorization",
        f"ApiKey {KEY}",
    ),
]


async def search(
    case: Case, answer: Callable[[web.Request], Any], *, k: int = 3, deadline_s: float = 20, **more: Any
) -> tuple[SearchOutcome, Site]:
    """Search once for "currency of Mali" at a server that gives ``answer``."""
    async with serving(answer) as site, aclosing(case.open(site.url, **more)) as provider:
        outcome: SearchOutcome = await provider.search("currency of Mali", k, deadline_s)
    return outcome, site


def status(code: int, text: str = "{}", **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _: web.Response(status=code, text=text, content_type="application/json", headers=headers)


def results(case: Case, rows: list[Row]) -> Callable[[web.Request], web.Response]:
    return lambda _: web.json_response(case.body(rows))
