"""MediaWiki's action API, as Wikipedia has it: ``GET api.php?action=query``, one call for the search and its texts.

The texts are the pages' plain introductions, which the TextExtracts extension makes; Wikimedia's wikis have it.
See https://www.mediawiki.org/wiki/API:Search and https://www.mediawiki.org/wiki/Extension:TextExtracts.
"""

from collections.abc import Iterable
from typing import Unpack

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import FailureKind
from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import RestError
from searchr1.retrieval.providers.web import (
    WebOptions,
    WebProvider,
    WebResult,
    object_of,
    objects,
    text_of,
)
from searchr1.retrieval.registry import ProviderSpec, provider
from searchr1.retrieval.text import clean_text, cut_at_word

_MAX_PAGES = 20
"""Introductions of one call."""
_MAX_QUERY_CHARS = 300
"""Longer queries are refused."""
_KINDS: dict[str, FailureKind] = {"ratelimited": "rate_limited", "maxlag": "unavailable", "readonly": "unavailable"}
"""Error codes, which come with status 200, and what they mean; others refuse the request."""


class MediaWikiProvider(WebProvider):
    """A ``Retriever`` over the ``api.php`` at ``base_url``. ``api_key`` is an OAuth 2 access token.

    Wikimedia asks clients to name themselves and a way to reach who runs them: ``contact``, an address or a URL.
    """

    name, label = "mediawiki", "MediaWiki"

    def __init__(
        self, base_url: str, *, api_key: str | None = None, contact: str = "", **options: Unpack[WebOptions]
    ) -> None:
        if not (contact.isascii() and contact.isprintable()):
            raise ConfigurationError("mediawiki: contact must be printable ASCII")
        headers = {"User-Agent": f"searchr1 ({contact})" if contact else "searchr1"}
        if api_key:
            headers["Authorization"] = f"Bearer {usable_key(api_key, self.label)}"
        super().__init__(base_url, headers=headers, **options)

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        wanted = {"action": "query", "format": "json", "formatversion": "2"}
        wanted |= {
            "generator": "search",
            "gsrsearch": cut_at_word(query, _MAX_QUERY_CHARS),
            "gsrlimit": str(min(k, _MAX_PAGES)),
        }
        wanted |= {"prop": "extracts|info", "inprop": "url", "exintro": "1", "explaintext": "1", "exlimit": "max"}
        body = object_of(await self._api.get("", wanted))
        if isinstance(error := body.get("error"), dict):
            code = text_of(error.get("code"))
            raise RestError(_KINDS.get(code, "rejected"), f"refused the search ({clean_text(code)[:100]})")
        found = body.get("query")
        if found is None and "batchcomplete" in body:  # as it answers where it found nothing
            return ()
        pages = objects(found.get("pages") if isinstance(found, dict) else None, "pages")
        if pages and not any("extract" in page for page in pages):
            raise RestError("bad_response", "answered without texts; does the wiki have the TextExtracts extension?")
        return map(_result, sorted(pages, key=_rank))


def _rank(page: dict[str, object]) -> int:
    index = page.get("index")
    return index if isinstance(index, int) else _MAX_PAGES + 1


def _result(page: dict[str, object]) -> WebResult:
    return WebResult(text_of(page.get("title")), text_of(page.get("fullurl")), text_of(page.get("extract")))


@provider("mediawiki", form="mediawiki:https://HOST/w/api.php", needs_target=True, key="optional")
async def open_mediawiki(spec: ProviderSpec) -> MediaWikiProvider:
    """Open a wiki, with the option ``contact``."""
    contact = spec.take("contact").get("contact", "")
    return MediaWikiProvider(spec.target, api_key=spec.secret, contact=contact, max_chars=spec.passage_chars)
