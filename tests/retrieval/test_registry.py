"""From an operator's words to providers, and the chain that they form."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found
from searchr1.retrieval.config import ResilienceConfig, SearchConfig
from searchr1.retrieval.factory import open_chain, parse_chain
from searchr1.retrieval.registry import open_provider, parse_spec


def test_a_chain_is_read_in_its_order_with_each_ones_key_and_options() -> None:
    config = SearchConfig(
        " opensearch:https://h:9200/wiki?mode=bm25 , http://r/retrieve,index:/data/x",
        secrets={"opensearch": "s3cret", "retrieve": "other"},
    )
    specs = parse_chain(config)
    assert [(s.kind, s.target, dict(s.options), s.secret) for s in specs] == [
        ("opensearch", "https://h:9200/wiki", {"mode": "bm25"}, "s3cret"),
        ("retrieve", "http://r/retrieve", {}, "other"),
        ("index", "/data/x", {}, None),
    ]
    assert [s.is_local for s in specs] == [False, False, True]


def test_a_chain_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no retriever is named"):
        parse_chain(SearchConfig(" , "))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("index:/x?encoder=y", "index: has no option 'encoder'"),
        ("opensearch:http://h:1/i?mode=fuzzy", "mode is 'fuzzy'"),
        ("opensearch:http://h:1/i?mode=knn&vector_field=v", "needs the folder of its encoder"),
        ("qdrant:http://h:1/c", "needs the folder of its encoder"),
        ("opensearch:http://h:1/?colour=red", "no option 'colour'"),
    ],
)
async def test_an_option_that_cannot_work_says_why(spec: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with open_provider(parse_spec(spec)):
            pass


async def test_the_chain_goes_on_where_a_provider_fails(
    index_path: Path, serve_raw: Callable[[bytes], AbstractAsyncContextManager[str]]
) -> None:
    broken = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    async with serve_raw(broken) as url:
        config = SearchConfig(f"{url},index:{index_path}", resilience=ResilienceConfig(attempts=1))
        async with open_chain(config) as retriever:
            outcome = await retriever.search("Timbuktu", 1, 30)
    assert isinstance(outcome, Found)
    assert outcome.passages[0].id == "timbuktu"


@pytest.mark.parametrize("key", ["s3cr\u00e9t", "s3cr\net", "  "])
def test_a_key_that_cannot_be_sent_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_spec("opensearch:http://h:1/i", secrets={"opensearch": key})
    assert "s3cr" not in str(raised.value)


def test_a_keys_white_space_is_dropped() -> None:
    assert parse_spec("tavily:", secrets={"tavily": " s3cret\n"}).secret == "s3cret"
