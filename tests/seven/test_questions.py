"""Questions read by path: sets, articles that they share, samples, and the passages that answer them."""

from collections import Counter
from pathlib import Path

import pytest

from loadtests.seven.oracle import OracleRetriever, oracle_passages
from loadtests.seven.questions import Tied, read_questions, sampled
from searchr1.errors import DatasetError
from searchr1.retrieval.base import Found
from tests.seven.papers import QUESTIONS, write_corpus, write_questions


def test_questions_have_their_sets_names_and_ids_of_their_own(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path))
    assert len(questions) == len(QUESTIONS)
    sets = Counter(one.question.data_source for one in questions)
    assert sets == {"nq": 10, "2wikimultihopqa": 11, "squad": 10, "bamboogle": 1}
    assert questions[0].question.id == "nq/q0"
    assert [one.question.id for one in questions if one.is_yes_no] == ["2wikimultihopqa/yes"]
    assert {one.question.hops for one in questions} == {1, 2}


def test_articles_that_questions_tie_together_are_one_cluster(tmp_path: Path) -> None:
    clusters = {one.question.id: one.cluster for one in read_questions(write_questions(tmp_path))}
    assert clusters["nq/q0"] == clusters["nq/q1"] != clusters["nq/q2"]
    # "yes" is about both of their articles.
    assert clusters["2wikimultihopqa/q10"] == clusters["2wikimultihopqa/q12"] == clusters["2wikimultihopqa/yes"]
    assert clusters["2wikimultihopqa/q14"] != clusters["2wikimultihopqa/q10"]


def test_ties_hold_over_steps_in_any_order() -> None:
    tied = Tied("abcdef")
    for pair in ("ef", "bc", "cd", "eb"):
        tied.tie(pair)
    tied.tie([])
    assert [tied.name_of(name) for name in "abcdef"] == ["a", "b", "b", "b", "b", "b"]


def test_a_sample_has_as_many_of_each_set_and_grows(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path))
    few, more = (sampled(questions, num) for num in (3, 5))
    assert Counter(one.question.data_source for one in few) == {
        "nq": 3,
        "2wikimultihopqa": 3,
        "squad": 3,
        "bamboogle": 1,
    }
    assert {one.question.id for one in few} < {one.question.id for one in more}
    assert few == sampled(questions, 3)
    assert few != sampled(questions, 3, seed=1)
    assert few != questions[:3] + questions[10:13] + questions[20:23] + questions[-1:]
    assert sampled(questions, None) == questions


def test_a_line_that_is_no_question_is_told(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"id": "1", "question": "Why?", "golden_answers": [], "dataset": "nq"}\n', "utf-8")
    with pytest.raises(DatasetError, match=r"line 1.*golden_answers"):
        read_questions(path)


def test_gold_passages_are_found_by_id_or_by_title_and_answer(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path))
    found = oracle_passages(questions, write_corpus(tmp_path))
    assert len(found) == len(questions)
    assert [passage.id for passage in found["Who keeps lighthouse 3?"]] == ["3"]
    assert [passage.id for passage in found["Is lighthouse 10 older than lighthouse 11?"]] == ["10", "11"]
    # Of two passages of the article, the one that holds an answer.
    assert [passage.id for passage in found["Who keeps lighthouse 30?"]] == ["30"]


def test_a_question_without_a_gold_passage_is_left_out(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "other", "contents": "\\"Lighthouse 15\\"\\nIt is white."}\n', "utf-8")
    found = oracle_passages(questions, corpus)
    assert {question: [p.id for p in passages] for question, passages in found.items()} == {
        "Who keeps lighthouse 30?": ["other"]
    }


async def test_the_oracle_finds_what_answers_however_a_question_ends(tmp_path: Path) -> None:
    questions = read_questions(write_questions(tmp_path))
    oracle = OracleRetriever(oracle_passages(questions, write_corpus(tmp_path)))
    for asked in ("Who keeps lighthouse 3?", "Who keeps lighthouse 3", " Who keeps lighthouse 3? "):
        found = await oracle.search(asked, 3, 1.0)
        assert isinstance(found, Found)
        assert [passage.id for passage in found.passages] == ["3"]
    assert await oracle.search("Who keeps lighthouse 99?", 3, 1.0) == Found((), provider="oracle")
