"""The ``dense:`` provider: exact nearest neighbors over an index folder on this machine."""

import asyncio
from pathlib import Path

from searchr1.retrieval.index.encoder import open_encoder
from searchr1.retrieval.registry import OpenRetriever, ProviderSpec, provider


@provider("dense", form="dense:PATH?encoder=FOLDER", needs_target=True, is_local=True)
async def open_dense(spec: ProviderSpec) -> OpenRetriever:
    """Open the folder that ``searchr1 index build --dense`` wrote, with the encoder that it was built by."""
    # numpy takes long to import, and servers without an index do not need it.
    from searchr1.retrieval.index.dense import DenseIndex

    spec.take("encoder")
    encoder = await open_encoder(spec)
    index = await asyncio.to_thread(lambda: DenseIndex.open(Path(spec.target).expanduser(), encoder))
    return index.retriever()
