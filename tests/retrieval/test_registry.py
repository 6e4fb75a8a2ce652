"""The declared providers, from an operator's words to one of them, and the chain that they form."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found
from searchr1.retrieval.config import ResilienceConfig, SearchConfig
from searchr1.retrieval.factory import open_chain, parse_chain
from searchr1.retrieval.registry import Provider, forms, key_variable, open_provider, parse_spec, provider, providers

DOCS = (Path(__file__).parents[2] / "docs" / "guides" / "search.md").read_text("utf-8")


@pytest.fixture(params=providers().values(), ids=lambda one: one.name)
def declared(request: pytest.FixtureRequest) -> Provider:
    chosen: Provider = request.param
    return chosen


def test_a_form_names_its_provider(declared: Provider) -> None:
    spec = parse_spec(declared.form)
    assert (spec.kind, spec.is_local, bool(spec.target)) == (declared.name, declared.is_local, declared.needs_target)
    assert declared.form in forms()


def test_a_provider_that_needs_a_target_is_refused_without_one(declared: Provider) -> None:
    if declared.needs_target:
        with pytest.raises(ConfigurationError, match="no retriever is called"):
            parse_spec(f"{declared.name}:")
    else:
        assert parse_spec(f"{declared.name}:").target == ""


@pytest.mark.parametrize("name", [one.name for one in providers().values() if one.key == "required"])
async def test_a_provider_that_needs_a_key_is_not_opened_without_one(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"needs a key; set {key_variable(name)}"):
        async with open_provider(parse_spec(f"{name}:")):
            pass


def test_a_provider_has_its_row_in_the_docs(declared: Provider) -> None:
    [row] = [line for line in DOCS.splitlines() if line.startswith(f"| `{declared.form}` |")]
    _, _, _, key = (cell.strip() for cell in row[1:-1].split("|"))
    variable = key_variable(declared.name)
    assert key == {"none": "", "optional": f"`{variable}`, optional", "required": f"`{variable}`"}[declared.key]


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="two providers are called 'exa'"):
        provider("exa", form="exa:")(providers()["exa"].open)


@pytest.mark.process
def test_reading_the_declarations_imports_nothing_that_takes_long() -> None:
    program = (
        "import sys, searchr1.settings\n"
        "assert 'httpx' not in sys.modules\n"
        "from searchr1.retrieval.registry import providers\n"
        "assert len(providers()) > 10\n"
        "slow = {'numpy', 'numba', 'bm25s', 'onnxruntime', 'tavily', 'redis', 'tokenizers', 'torch'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


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
        ("opensearch:http://h:1/?color=red", "no option 'color'"),
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
        async with open_chain(parse_chain(config), config) as retriever:
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
