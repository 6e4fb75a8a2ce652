"""``searchr1 data demonstrations``, whole: what it writes of an invented world, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from searchr1.atlas.records import Demonstration, read_demonstrations
from searchr1.cli.main import app
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits
from searchr1.starts import demonstrations as module
from searchr1.starts.demonstrations import StartConfig, StartReport, build_start
from searchr1.starts.leaks import HeldOut
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import replay
from tests.starts.invented import BIRTHPLACES, FOUNDERS, TOWNS, TRAIN, YEARS, steps_of, write_gz

Build = Any
"""Calls ``build_start`` with the world's paths, and returns the report and the demonstrations."""


@pytest.fixture
def build(world: Path, index: Path, tokenizer_folder: Path, tmp_path: Path) -> Build:
    def built(**options: Any) -> tuple[StartReport, list[Demonstration]]:
        output = tmp_path / "out.jsonl"
        paths = {"sources": (str(world),), "held_out": (str(world),), "tokenizer": str(tokenizer_folder)}
        given: dict[str, Any] = paths | options
        report = build_start(StartConfig(index=index, output=output, **given), progress=False)
        return report, list(read_demonstrations(output))

    return built


def test_the_form_is_a_search_for_the_question_and_a_quoted_answer(build: Build) -> None:
    report, made = build(max_observation_tokens=4000)
    one = next(demonstration for demonstration in made if demonstration.id == "one_train_0")
    search, answer = one.turns
    query = f"In what year was the town of {TOWNS[0]} founded?"
    assert search.query == query
    assert search.text == (f"<think> I do not know this, so I search for it. </think>\n<search> {query} </search>")
    assert len(search.passages) == 3
    place = [passage.title for passage in search.passages].index(f'"{TOWNS[0]}"') + 1
    said = f"The town of {TOWNS[0]} was founded by {FOUNDERS[0]} in 1801."
    assert answer.text == (
        f'<think> Doc {place} says: "{said}" So the answer is 1801. </think>\n<answer> 1801 </answer>'
    )
    assert report.searches == {1: len(made)}
    assert report.by_source["squad"] == len(TRAIN)
    assert report.num_cut == 0
    assert "nothing found" in str(report)


def test_hops_are_searched_one_after_the_other_along_the_gold_passages(build: Build) -> None:
    report, made = build(kind="hops", max_observation_tokens=4000)
    two = next(demonstration for demonstration in made if demonstration.id == "two_train_1")
    first, second, answer = two.turns
    assert first.query is not None
    assert first.query.startswith(TOWNS[1])
    assert first.query not in first.text.partition("</think>")[0], "a thought does not repeat the query"
    assert second.query is not None
    assert second.query.startswith(FOUNDERS[1])
    assert f"was founded by {FOUNDERS[1]} in 1802." in second.text
    assert answer.text.endswith(f"<answer> {BIRTHPLACES[1]} </answer>")
    assert report.searches == {1: len(TRAIN), 2: len(TRAIN)}


def test_a_second_try_says_no_title_that_the_question_does_not(build: Build, tmp_path: Path) -> None:
    """Else the policy would learn to ask for what it can't know, which often is the answer."""
    asks = {"hops": 1, "golden_answers": [str(YEARS[0])], "dataset": "squad"}
    found_at_once = f"When did {FOUNDERS[0]} found the town of {TOWNS[0]}?"
    question = f"When were the first stones of {TOWNS[0]}, where a merchant who was born in Karst died at sea, laid?"
    rows = [
        asks | {"id": "named", "question": question, "supporting_titles": [TOWNS[0]], "gold_ids": ["1"]},
        asks | {"id": "unnamed", "question": "What merchant died at sea?", "supporting_titles": [FOUNDERS[0]]},
        asks | {"id": "once", "question": found_at_once, "supporting_titles": [TOWNS[0]], "gold_ids": ["1"]},
    ]
    path = write_gz(tmp_path / "q.jsonl.gz", rows)
    _, made = build(sources=(str(path),), kind="hops", top_k=1, max_observation_tokens=4000)
    queries = {one.id: [turn.query for turn in one.turns] for one in made}
    assert queries["once"] == [found_at_once, None]
    assert queries["named"][0] == question
    assert (queries["named"][1] or "").startswith(TOWNS[0])
    assert "unnamed" not in queries


def test_decompositions_are_searched_as_they_stand(build: Build, tmp_path: Path) -> None:
    steps = write_gz(tmp_path / "steps.jsonl.gz", [steps_of(2, "train")])
    _, made = build(kind="hops", decompositions=steps, max_observation_tokens=4000)
    two = next(demonstration for demonstration in made if demonstration.id == "two_train_2")
    assert [turn.query for turn in two.turns] == [f"{TOWNS[2]} founded by", f"Where was {FOUNDERS[2]} born?", None]
    with pytest.raises(ConfigurationError, match="--kind hops"):
        build(kind="form", decompositions=steps)


def test_nothing_held_out_is_shown_though_it_would_be_found(build: Build, index: Path) -> None:
    from searchr1.retrieval.index.bm25 import LocalIndex

    found = LocalIndex.open(index).search_batch([f"In what year was the town of {TOWNS[0]} founded?"], 16)[0]
    held_out = {f'"{name}"' for name in (*TOWNS[6:], *FOUNDERS[6:])}
    assert {passage.title for passage in found} & held_out, "else this tests nothing"
    _, made = build(top_k=10, max_observation_tokens=4000)
    assert made
    shown = {passage.title for one in made for turn in one.turns for passage in turn.passages}
    assert shown & held_out == set()


def test_passages_are_as_many_as_fit_or_the_cut_is_taught(build: Build, tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(str(tokenizer_folder))
    limits = Limits(max_observation_tokens=120)
    _, fitting = build(max_observation_tokens=120)
    shown = [turn.passages for one in fitting for turn in one.turns if turn.query is not None]
    assert {len(passages) for passages in shown} <= {1, 2}
    for one in fitting:
        observation = replay(one, tokenizer, limits).segments[2]
        assert observation.kind == "observation"
        assert tokenizer.decode(observation.ids).endswith("</information>\n\n")
    report, cut = build(max_observation_tokens=120, fit=False, force=True)
    assert report.num_cut == len(cut) > 0
    lost = [tokenizer.decode(replay(one, tokenizer, limits).segments[2].ids) for one in cut]
    assert not any(text.endswith("</information>\n\n") for text in lost)
    assert all(len(tokenizer.encode(SEARCH_R1.observation(one.turns[0].passages))) > 120 for one in cut)


def test_the_number_of_passages_may_vary(build: Build) -> None:
    _, made = build(vary=True, max_observation_tokens=4000)
    assert {len(one.turns[0].passages) for one in made} == {1, 2, 3}
    assert all("says" in one.turns[1].text for one in made)
    assert build(vary=True, max_observation_tokens=4000, force=True)[1] == made


def test_training_questions_that_are_held_out_too_are_left_out(build: Build, world: Path) -> None:
    report, made = build(held_out=(str(world), str(world / "validation.jsonl.gz")), max_observation_tokens=4000)
    assert report.left_out["held-out question"] == 2
    assert {one.id.rpartition("_")[2] for one in made} == {"0", "1", "2", "3", "4"}
    with pytest.raises(DatasetError, match="no question gave a demonstration; left out: 12 held-out question"):
        build(held_out=(str(world / "train.jsonl.gz"),), force=True)


def test_a_leak_that_got_past_is_refused_and_nothing_is_written(
    build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_free_of", lambda training, held_out, left_out: iter(training))
    monkeypatch.setattr(HeldOut, "is_passage", lambda self, passage: False)
    leaks = iter([None] * 3 + ["held-out passage"] * 100)
    monkeypatch.setattr(HeldOut, "leak_of", lambda self, demonstration: next(leaks))
    with pytest.raises(DatasetError, match="held-out passage found"):
        build(limit=3)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_stays(build: Build, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        build()
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_the_choice_depends_on_the_seed(build: Build) -> None:
    chosen = {seed: [one.id for one in build(limit=4, seed=seed, force=True)[1]] for seed in (0, 0, 1)}
    assert all(len(ids) == 4 for ids in chosen.values())
    assert chosen[0] != chosen[1]


def test_few_answers_are_titles(build: Build, world: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"by_{place}",
            "question": f"By which merchant was the town of {TOWNS[place]} founded?",
            "golden_answers": [FOUNDERS[place]],
            "dataset": "squad",
            "hops": 1,
            "gold_ids": [str(2 * place + 1)],
        }
        for place in TRAIN
    ]
    path = write_gz(tmp_path / "by.jsonl.gz", rows)
    with pytest.raises(DatasetError, match="6 answer is a shown title"):
        build(sources=(str(path),), title_share=0.0, top_k=16, max_observation_tokens=4000)
    assert len(build(sources=(str(path),), title_share=1.0, top_k=16, max_observation_tokens=4000)[1]) == 6


def test_the_command_tells_the_check(world: Path, index: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    paths = ["--index", str(index), "--held-out", str(world), "--tokenizer", str(tokenizer_folder)]
    words = ["data", "demonstrations", str(world), *paths, "--output", str(tmp_path / "form.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "demonstrations (" in done.output
    assert "against 4 held-out questions, 4 passages of theirs and 4 titles that are theirs alone: nothing found" in (
        " ".join(done.output.split())
    )
