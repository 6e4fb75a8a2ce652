"""The searches of ``loadtests/recall.py`` are for passages that answer: else its table would mean nothing."""

from collections.abc import Sequence

import pytest

from loadtests.recall import Hop, hops_of, recall, table
from searchr1.atlas.corpus import entries
from searchr1.atlas.questions import generate
from searchr1.atlas.questions import hops_of as count_hops
from searchr1.atlas.world import World, load_world
from searchr1.loop.types import Passage


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_the_last_passage_of_every_question_holds_an_answer(world: World) -> None:
    texts = {entry.id: entry.text for entry in entries(world, "all")}
    questions = generate(world, "test", 300, seed=5)
    assert {question.hops for question in questions} == {1, 2, 3}
    for question in questions:
        hops = list(hops_of(world, question))
        assert len(hops) == count_hops(question.kind)
        assert all(hop.gold & texts.keys() for hop in hops), hops
        gold = [texts[identifier] for identifier in hops[-1].gold if identifier in texts]
        assert any(answer in text for answer in question.golden_answers for text in gold), (question, hops[-1])


def test_a_search_counts_as_found_by_its_gold_alone() -> None:
    hops = [Hop(1, "capital", ("a", "b"), frozenset({"x"})), Hop(2, "capital", ("c", "d"), frozenset({"y"}))]
    passages = [Passage("z", "", ""), Passage("y", "", "")]
    asked: list[str] = []

    def search(queries: Sequence[str], k: int) -> list[list[Passage]]:
        asked.extend(queries)
        return [passages[:k] for _ in queries]

    assert recall(hops, search, 1) == [False, False]
    assert recall(hops, search, 2, wording=1) == [False, True]
    assert asked == ["a", "c", "b", "d"]
    assert table(hops, {"BM25 @2": [False, True]}).splitlines() == [
        "| | searches | BM25 @2 |",
        "|---|---:|---:|",
        "| hop 1 | 1 | 0.000 |",
        "| hop 2 | 1 | 1.000 |",
        "| fact: capital | 2 | 0.500 |",
        "| all | 2 | 0.500 |",
    ]
