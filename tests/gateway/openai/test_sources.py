"""The URLs by which OpenAI's clients know sources."""

from urllib.parse import unquote

import pytest
from pydantic import AnyUrl, TypeAdapter

from searchr1.gateway.openai.sources import url_of
from searchr1_client.events import Citation, WirePassage

TITLES = ["Mali", "Guinea-Bissau", "Côte d'Ivoire", "東京", "a/b?c#d", "100% <b>", "two words", "javascript:alert(1)"]


def passage(title: str, *, index: int = 1, url: str | None = None) -> WirePassage:
    return WirePassage(index=index, title=title, url=url, snippet="")


def test_a_url_is_kept() -> None:
    assert url_of(passage("Mali", url="https://atlas.example/mali")) == "https://atlas.example/mali"


@pytest.mark.parametrize("title", TITLES)
def test_a_title_is_a_urn_that_says_it(title: str) -> None:
    url = url_of(passage(title))
    scheme, kind, name = url.split(":")
    assert (scheme, kind, unquote(name)) == ("urn", "passage", title)
    assert str(TypeAdapter(AnyUrl).validate_python(url)) == url


def test_sources_without_a_url_are_told_apart() -> None:
    sources = [*(passage(title) for title in TITLES), passage("", index=1), passage("", index=2)]
    assert len({url_of(source) for source in sources}) == len(sources)


@pytest.mark.parametrize("title", ["Mali", ""])
def test_a_citation_has_the_url_of_its_passage(title: str) -> None:
    assert url_of(Citation(index=3, title=title, start=0, end=1)) == url_of(passage(title, index=3))
