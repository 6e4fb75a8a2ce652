"""The base of web providers: how they are called, and how their results become passages in the trained form.

To write one, derive from ``WebProvider`` and say in ``_results`` how to ask and how to read the answer.
"""

import abc
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.documents import passage_of
from searchr1.retrieval.providers.rest import MAX_BODY_BYTES, Reply, RestApi, RestError
from searchr1.retrieval.text import clean_text, cut_at_word

MAX_CHARS = 2000
"""Characters of a passage's text."""
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)|[。！？][」』”’）]*")
_READ_AHEAD = 4
"""Characters that are read for one that is kept: markup and white space are dropped."""


@dataclass(frozen=True, slots=True)
class WebResult:
    """One result as a provider words it. With ``markup``, title and text are HTML."""

    title: str
    url: str
    text: str
    score: float | None = None
    markup: bool = False


class WebOptions(TypedDict, total=False):
    """Arguments of every web provider, beside its own options."""

    max_chars: int
    """Bound of a passage's text."""
    client: httpx.AsyncClient | None
    """The caller's connections; the provider's own by default."""
    max_body_bytes: int
    """Bound of what is read of an answer."""


class WebProvider(abc.ABC):
    """A ``Retriever`` over a web search's HTTP interface at ``base_url``; ``headers`` go with every call.

    Raises ``ConfigurationError`` for a URL that cannot be called.
    """

    name: ClassVar[str]
    """Name in outcomes and metrics."""
    label: ClassVar[str]
    """Name in messages for people."""

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_chars: int = MAX_CHARS,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._max_chars = max_chars
        self._api = RestApi(
            base_url,
            label=self.label,
            provider=self.name,
            headers=headers,
            client=client,
            max_body_bytes=max_body_bytes,
            passes_trace=False,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. An empty query is not sent."""
        if k < 1 or not query.strip():
            return Found((), provider=self.name)
        return await self._api.within(deadline_s, self._passages(clean_text(query), k))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _passages(self, query: str, k: int) -> tuple[Passage, ...]:
        return passages_from(await self._results(query, k), k, self._max_chars)

    @abc.abstractmethod
    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        """Ask for ``k`` results and read the answer, best first; the caller bounds their number, length and time.

        Raises ``RestError`` and httpx's errors.
        """


def passages_from(results: Iterable[WebResult], k: int, max_chars: int) -> tuple[Passage, ...]:
    """Return the first ``k`` results with a text or a title, one per URL, their texts cut to ``max_chars``."""
    passages: dict[str, Passage] = {}
    for result in results:
        title, text = result.title[:1000], result.text[: _READ_AHEAD * max_chars]
        if result.markup:
            title, text = plain_text(title), plain_text(text)
        document = {"title": title, "text": trim(" ".join(text.split()), max_chars), "url": result.url}
        passage = passage_of(document, "", result.score)
        if passage is not None and (title.strip() or text.strip()):
            passages.setdefault(passage.url or passage.contents, passage)
        if len(passages) == k:
            break
    return tuple(passages.values())


def plain_text(markup: str) -> str:
    """Return HTML without its tags, entities resolved."""
    return html.unescape(_MARKUP.sub("", markup))


def trim(text: str, max_chars: int) -> str:
    """Return the first sentences of ``text`` that fit into ``max_chars``, or the first words where no sentence does."""
    if len(text) <= max_chars:
        return text
    head = text[:max_chars]
    # One character more tells whether a stop at the very end ends a sentence or stands within a number.
    ends = [match.end() for match in _SENTENCE_END.finditer(text[: max_chars + 1]) if match.end() <= max_chars]
    if ends:
        return head[: ends[-1]]
    return cut_at_word(text, max_chars)


def object_of(reply: Reply, hint: str = "") -> dict[str, Any]:
    """Return the JSON object of a successful reply. Raises ``RestError``, with ``hint`` where the provider refuses us.

    What a provider says in an error is left out: some repeat the key.
    """
    if not reply.is_success:
        raise reply.error(hint if 400 <= reply.status < 500 else "")
    return reply.json_object()


def objects(value: object, name: str) -> list[dict[str, object]]:
    """Return the objects in the list ``value``, without other things. Raises ``RestError`` for what is no list."""
    if not isinstance(value, list):
        raise RestError("bad_response", f'answered without a list "{name}"')
    return [item for item in value if isinstance(item, dict)]


def text_of(value: object) -> str:
    """Return a string as it is, and an empty one for anything else."""
    return value if isinstance(value, str) else ""
