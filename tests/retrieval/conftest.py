"""A small corpus, its index, and servers on ephemeral ports of 127.0.0.1."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from searchr1.retrieval.index.bm25_retriever import LocalIndex, build_index
from searchr1.retrieval.index.encoder import EncoderSettings, HuggingFaceEncoder

CONTENTS = {
    "mali": '"Mali"\nMali is a landlocked country in West Africa. Its capital is Bamako.',
    "bamako": '"Bamako"\nBamako is the capital of Mali and its largest city.',
    "timbuktu": '"Timbuktu"\nTimbuktu is a city in Mali, on the edge of the Sahara.',
    "cordoba": '"Córdoba"\nCórdoba is a city in Andalusia, in the south of Spain.',
    "untitled": "A single line about rivers.",
}

Serve = Callable[[FastAPI], AbstractAsyncContextManager[str]]
ServeRaw = Callable[[bytes], AbstractAsyncContextManager[str]]


@pytest.fixture
def contents() -> dict[str, str]:
    return dict(CONTENTS)


@pytest.fixture(scope="session")
def corpus_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    records = ({"id": key, "contents": text} for key, text in CONTENTS.items())
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def index_path(corpus_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "world"
    build_index(corpus_path, path, progress=False)
    return path


@pytest.fixture
def index(index_path: Path) -> LocalIndex:
    return LocalIndex.open(index_path)


@pytest.fixture
def encoder_path(tmp_path: Path, contents: dict[str, str]) -> Path:
    """A tiny encoder over the words of the corpus."""
    from tests.retrieval.index.tiny_encoder import build_tiny_encoder

    path = tmp_path / "encoder"
    build_tiny_encoder(path, re.findall(r"\w+|[^\w\s]", " ".join(contents.values()).lower()))
    return path


@pytest.fixture
def encoder(encoder_path: Path) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(encoder_path, EncoderSettings("", ""))


@pytest.fixture
def serve_app() -> Serve:
    """Serves an app; gives the URL of its ``/retrieve``."""

    @contextlib.asynccontextmanager
    async def serve(app: FastAPI) -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve"
            finally:
                server.should_exit = True
                await task

    return serve


@pytest.fixture
def serve_raw() -> ServeRaw:
    """Answers every request with the same bytes and closes; no bytes mean that it never answers."""

    @contextlib.asynccontextmanager
    async def serve(answer: bytes) -> AsyncIterator[str]:
        handlers: list[asyncio.Task[None]] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            with contextlib.suppress(ConnectionError):
                if answer:
                    writer.write(answer)
                    await writer.drain()
                else:
                    await reader.read()
                writer.close()
                await writer.wait_closed()

        def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.create_task(handle(reader, writer)))

        server = await asyncio.start_server(start, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/retrieve"
            await asyncio.gather(*handlers)

    return serve
