"""From a setting to a retriever."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError, CorpusError
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.factory import open_retriever


async def test_opens_and_closes_an_index(index_path: Path) -> None:
    async with open_retriever(f"index:{index_path}") as retriever:
        outcome = await retriever.search("Timbuktu", 1, 30)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].id == "timbuktu"
    assert isinstance(await retriever.search("Timbuktu", 1, 30), SearchFailed)


async def test_a_tilde_is_the_home_folder(index_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(index_path.parent))
    async with open_retriever(f"index:~/{index_path.name}") as retriever:
        assert isinstance(await retriever.search("Timbuktu", 1, 30), Found)


async def test_opens_and_closes_an_http_client(serve_raw: Callable[[bytes], AbstractAsyncContextManager[str]]) -> None:
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 22\r\nconnection: close\r\n\r\n{"result": [["T\\nx"]]}'
    async with serve_raw(answer) as url, open_retriever(url) as retriever:
        outcome = await retriever.search("q", 1, 30)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].title == "T"
    assert isinstance(await retriever.search("q", 1, 30), SearchFailed)


async def test_the_timeout_bounds_an_http_search(
    serve_raw: Callable[[bytes], AbstractAsyncContextManager[str]],
) -> None:
    async with serve_raw(b"") as url, open_retriever(url, timeout_s=0.05) as retriever:
        outcome = await retriever.search("q", 1, 30)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"


@pytest.mark.parametrize("spec", ["", "index:", "index", "world", "file:///x", "/some/path"])
async def test_an_unknown_form_lists_the_known_ones(spec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"http://HOST:PORT/retrieve.*index:PATH"):
        async with open_retriever(spec):
            pass


async def test_an_index_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        async with open_retriever(f"index:{tmp_path / 'missing'}"):
            pass
