"""A tiny encoder over the words of the small corpus, and servers on ephemeral ports of 127.0.0.1."""

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from aiohttp import web

from searchr1.retrieval.index.encoder import EncoderSettings, HuggingFaceEncoder
from tests.retrieval.index.tiny_encoder import build_tiny_encoder

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], AbstractAsyncContextManager[str]]
NO_PREFIXES = EncoderSettings("", "")


@pytest.fixture
def encoder_path(tmp_path: Path, contents: dict[str, str]) -> Path:
    path = tmp_path / "encoder"
    build_tiny_encoder(path, re.findall(r"\w+|[^\w\s]", " ".join(contents.values()).lower()))
    return path


@pytest.fixture
def encoder(encoder_path: Path) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(encoder_path, NO_PREFIXES)


@pytest.fixture
def serve() -> Serve:
    """Answers every request by a handler; gives the server's URL."""

    @contextlib.asynccontextmanager
    async def running(handler: Handler) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    return running
