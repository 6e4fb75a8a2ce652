"""From one provider's setting, such as ``tavily:?topic=news``, to its retriever. Each is imported when it is opened."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.providers.rest import usable_key

if TYPE_CHECKING:
    from searchr1.retrieval.index.encoder import Encoder

FORMS = (
    "http://HOST:PORT/retrieve, index:PATH, dense:PATH?encoder=FOLDER, tavily:, searxng:http://HOST:PORT, brave:, "
    "serper:, exa:, opensearch:http://HOST:PORT/INDEX, elasticsearch:http://HOST:PORT/INDEX, "
    "qdrant:http://HOST:PORT/COLLECTION?encoder=FOLDER"
)
LOCAL = ("index", "dense")
"""Kinds that search on this machine: nothing to retry, to pay or to cache."""


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One provider as the operator names it."""

    kind: str
    target: str
    """What comes after the kind: a path, or a URL without its options."""
    options: Mapping[str, str]
    secret: str | None
    timeout_s: float
    passage_chars: int

    @property
    def is_local(self) -> bool:
        """Whether it searches on this machine."""
        return self.kind in LOCAL

    def take(self, *names: str) -> dict[str, str]:
        """The options called ``names``. Raises ``ConfigurationError`` for any other option."""
        if unknown := sorted(set(self.options) - set(names)):
            known = f"it takes {', '.join(names)}" if names else "it takes none"
            raise ConfigurationError(f"{self.kind}: has no option {unknown[0]!r}; {known}")
        return dict(self.options)

    def require_secret(self) -> str:
        """The provider's key. Raises ``ConfigurationError`` without one."""
        if not self.secret:
            raise ConfigurationError(f"{self.kind}: needs a key; set SEARCHR1_{self.kind.upper()}_API_KEY")
        return self.secret


class OpenRetriever(Retriever, Protocol):
    """A retriever that holds something open."""

    async def aclose(self) -> None:
        """Let go of it."""
        ...


Opener = Callable[[ProviderSpec], Awaitable[OpenRetriever]]


def parse_spec(
    spec: str, *, secrets: Mapping[str, str] | None = None, timeout_s: float = math.inf, passage_chars: int = 2000
) -> ProviderSpec:
    """Read one provider's setting. Raises ``ConfigurationError`` for an unknown one, or an unusable key."""
    kind, colon, rest = spec.strip().partition(":")
    options: dict[str, str] = {}
    if kind in ("http", "https"):
        kind, rest = "retrieve", spec.strip()
    else:
        rest, _, query = rest.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
    if kind not in OPENERS or not (colon or rest) or (kind in _NEED_TARGET and not rest):
        raise ConfigurationError(f"no retriever is called {spec!r}; use one of {FORMS}")
    secret = (secrets or {}).get(kind)
    key = None if secret is None else usable_key(secret, kind)
    return ProviderSpec(kind, rest, options, key, timeout_s, passage_chars)


@contextlib.asynccontextmanager
async def open_provider(spec: ProviderSpec) -> AsyncIterator[Retriever]:
    """Open what ``spec`` names and close it at the end of the block.

    Raises:
        ConfigurationError: an option or a key is missing or cannot work.
        CorpusError: an index cannot be opened.
    """
    async with contextlib.aclosing(await OPENERS[spec.kind](spec)) as retriever:
        yield retriever


async def _retrieve(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.retrieve import RetrieveClient

    return RetrieveClient(spec.target, timeout_s=spec.timeout_s, api_key=spec.secret)


async def _index(spec: ProviderSpec) -> OpenRetriever:
    # Imported here, because numpy and numba take half a second that an HTTP retriever does not need.
    from searchr1.retrieval.index.bm25_retriever import LocalIndex, LocalRetriever

    spec.take()
    index = await asyncio.to_thread(lambda: LocalIndex.open(Path(spec.target).expanduser()))
    return LocalRetriever(index)


async def _dense(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.index.dense import DenseIndex, DenseRetriever

    spec.take("encoder")
    encoder = await _encoder(spec)
    index = await asyncio.to_thread(lambda: DenseIndex.open(Path(spec.target).expanduser(), encoder))
    return DenseRetriever(index)


async def _encoder(spec: ProviderSpec) -> "Encoder":
    from searchr1.retrieval.index.encoder import HuggingFaceEncoder

    path = spec.options.get("encoder")
    if not path:
        raise ConfigurationError(f"{spec.kind}: needs the folder of its encoder: {spec.kind}:…?encoder=FOLDER")
    return await asyncio.to_thread(lambda: HuggingFaceEncoder(Path(path).expanduser()))


async def _opensearch(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.opensearch import OpenSearchRetriever

    options = spec.take("mode", "vector_field", "encoder")
    mode = options.get("mode", "bm25")
    if mode not in ("bm25", "knn"):
        raise ConfigurationError(f"{spec.kind}: mode is {mode!r}; it must be bm25 or knn")
    url, _, index = spec.target.rpartition("/")
    return OpenSearchRetriever(
        url,
        index,
        mode="knn" if mode == "knn" else "bm25",
        flavour="opensearch" if spec.kind == "opensearch" else "elasticsearch",
        vector_field=options.get("vector_field"),
        encoder=await _encoder(spec) if mode == "knn" else None,
        api_key=spec.secret,
    )


async def _qdrant(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.qdrant import QdrantRetriever

    options = spec.take("encoder", "vector_name")
    url, _, collection = spec.target.rpartition("/")
    encoder = await _encoder(spec)
    return QdrantRetriever(url, collection, encoder, vector_name=options.get("vector_name"), api_key=spec.secret)


async def _tavily(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.tavily import TavilyProvider

    options: dict[str, Any] = spec.take("depth", "topic", "include_domains", "exclude_domains")
    for name in ("include_domains", "exclude_domains"):
        options[name] = [domain for domain in options.get(name, "").split("+") if domain]
    return TavilyProvider(spec.require_secret(), max_chars=spec.passage_chars, **options)


async def _searxng(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.searxng import SearxngProvider

    options = spec.take("engines", "language")
    return SearxngProvider(
        spec.target,
        api_key=spec.secret,
        engines=options.get("engines", ""),
        language=options.get("language", ""),
        max_chars=spec.passage_chars,
    )


async def _brave(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.brave import BraveProvider

    options = spec.take("country", "extra_snippets")
    return BraveProvider(
        spec.require_secret(),
        country=options.get("country", ""),
        extra_snippets=options.get("extra_snippets") == "true",
        max_chars=spec.passage_chars,
    )


async def _serper(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.serper import SerperProvider

    options = spec.take("gl", "hl")
    return SerperProvider(
        spec.require_secret(),
        gl=options.get("gl", ""),
        hl=options.get("hl", ""),
        max_chars=spec.passage_chars,
    )


async def _exa(spec: ProviderSpec) -> OpenRetriever:
    from searchr1.retrieval.providers.exa import ExaProvider

    highlights = spec.take("contents").get("contents", "text") == "highlights"
    return ExaProvider(spec.require_secret(), max_chars=spec.passage_chars, highlights=highlights)


OPENERS: Mapping[str, Opener] = {
    "tavily": _tavily,
    "searxng": _searxng,
    "brave": _brave,
    "serper": _serper,
    "exa": _exa,
    "retrieve": _retrieve,
    "index": _index,
    "dense": _dense,
    "opensearch": _opensearch,
    "elasticsearch": _opensearch,
    "qdrant": _qdrant,
}
_NEED_TARGET = frozenset(OPENERS) - {"tavily", "brave", "serper", "exa"}
