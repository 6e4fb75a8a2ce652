"""The seam: a method is one registration, and what it declares is what the command line, records and tables show."""

import pytest

from searchr1.errors import ConfigurationError
from searchr1.evaluation.engine.compare import Comparison, needs_retriever
from searchr1.evaluation.methods import registry
from searchr1.evaluation.methods.registry import Method, all_methods, method_named, register


def test_the_methods_are_the_papers_baselines_and_search_r1() -> None:
    assert [method.name for method in all_methods()] == ["search-r1", "direct", "cot", "rag", "ircot"]
    rows = sorted(all_methods(), key=lambda method: method.paper_row)
    assert [method.title for method in rows] == ["Direct", "CoT", "IRCoT", "RAG", "Search-R1"]
    assert {method.name for method in all_methods() if method.searches} == {"search-r1", "rag", "ircot"}
    assert len({method.paper_row for method in all_methods()}) == len(all_methods())


def test_only_methods_that_search_need_a_retriever() -> None:
    assert not needs_retriever(["direct", "cot"])
    assert needs_retriever(["direct", "ircot"])


def test_a_name_is_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    run = method_named("direct").run
    with pytest.raises(ValueError, match="two methods are called 'direct'"):
        register("direct", title="D", order=9, paper_row=9, searches=False)(run)
    assert register("mine", title="Mine", order=9, paper_row=9, searches=False)(run) is run
    assert method_named("mine") == Method("mine", "Mine", 9, 9, False, run)


def test_an_unknown_method_is_told_with_those_that_there_are() -> None:
    known = ", ".join(sorted(method.name for method in all_methods()))
    with pytest.raises(ConfigurationError, match=f"no method 'rug'; there are {known}"):
        Comparison(methods=("rug",))
