"""The ``index:`` provider: BM25 over an index folder on this machine."""

import asyncio
from pathlib import Path

from searchr1.retrieval.registry import OpenRetriever, ProviderSpec, provider


@provider("index", form="index:PATH", needs_target=True, is_local=True)
async def open_index(spec: ProviderSpec) -> OpenRetriever:
    """Open the folder that ``searchr1 index build`` wrote."""
    # numpy and numba take half a second to import, which servers without an index do not need.
    from searchr1.retrieval.index.bm25 import LocalIndex

    spec.take()
    index = await asyncio.to_thread(lambda: LocalIndex.open(Path(spec.target).expanduser()))
    return index.retriever()
