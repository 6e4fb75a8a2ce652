"""From the words of a setting to a retriever."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.http import RetrieveClient

FORMS = "http://HOST:PORT/retrieve, https://HOST/retrieve, or index:PATH (a folder that `searchr1 index build` wrote)"


@contextlib.asynccontextmanager
async def open_retriever(spec: str, *, timeout_s: float = math.inf) -> AsyncIterator[Retriever]:
    """Open the retriever that ``spec`` names, and close it at the end of the block.

    ``timeout_s`` bounds each search over HTTP whose deadline is further away. Raises ``ConfigurationError`` for a
    ``spec`` of no known form, and ``CorpusError`` for an index that cannot be opened.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("http", "https"):
        async with contextlib.aclosing(RetrieveClient(spec, timeout_s=timeout_s)) as client:
            yield client
    elif kind == "index" and rest:
        async with _open_index(rest) as retriever:
            yield retriever
    else:
        raise ConfigurationError(f"no retriever is called {spec!r}; use one of {FORMS}")


@contextlib.asynccontextmanager
async def _open_index(path: str) -> AsyncIterator[Retriever]:
    # Imported here, because numpy and numba take half a second that an HTTP retriever does not need.
    from searchr1.retrieval.local import LocalIndex, LocalRetriever

    index = await asyncio.to_thread(lambda: LocalIndex.open(Path(path).expanduser()))
    async with contextlib.aclosing(LocalRetriever(index)) as retriever:
        yield retriever
