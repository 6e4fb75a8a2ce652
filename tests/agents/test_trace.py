"""Runs of the comparison: how they are put together, what is written, and how long searches take."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.agents.script import Script
from loadtests.agents.trace import Shape, Trace, drawn, lengths, observed, recorded, script_of
from searchr1.demo.bundle import CHECKPOINT
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.tokenizer import Tokenizer
from tests.agents.worlds import SMALL, TEXT, small_trace, write_recorded

PLACES = [f"Place {number}" for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(str(CHECKPOINT))


def test_recorded_runs_are_put_together_from_those_that_searched_once(tmp_path: Path) -> None:
    odd = ("", "<answer> a </answer>", TEXT.format(place="x") * 2, TEXT.format(place="x").partition("<answer>")[0])
    write_recorded(tmp_path, PLACES, odd=odd)
    runs = recorded(tmp_path, SMALL)
    assert [run.run for run in runs] == [f"{number:04d}" for number in range(6)]
    for run in runs:
        assert run.question.startswith(f"(run {run.run}) Where is ")
        assert {search.query for search in run.searches} <= {f"capital of {place}" for place in PLACES}
        assert run.searches[0].contents == (
            f'"{run.searches[0].query.removeprefix("capital of ")}"\nIt is (old) and large.',
            '"Other"\nNothing here.',
        )
        assert run.last_text.endswith("</answer>")
        assert run.answer in PLACES
        assert run.texts[-1] == run.last_text


@pytest.mark.parametrize("repeated", [0.0, 0.5])
def test_some_searches_are_made_by_several_runs_and_none_twice_by_one(repeated: float) -> None:
    runs = drawn(Shape(num_runs=40, num_searches=(2, 3), repeated=repeated))
    made = Counter(search.query for run in runs for search in run.searches)
    assert (max(made.values()) > 1) is (repeated > 0)
    assert all(len({search.query for search in run.searches}) == len(run.searches) for run in runs)
    assert {len(run.searches) for run in runs} <= {1, 2, 3}


def test_thoughts_can_be_cut_and_questions_come_with_text_of_their_own(tmp_path: Path) -> None:
    write_recorded(tmp_path, PLACES)
    runs = recorded(tmp_path, replace(SMALL, thought_chars=1, context_chars=300))
    for run in runs:
        assert all(search.text == f"<think> H </think> <search> {search.query} </search>" for search in run.searches)
        assert run.last_text == f"<think> S </think> <answer> {run.answer} </answer>"
        assert 300 < len(run.question) < 340
        assert run.question.startswith(f"(run {run.run}) ")
    assert len({run.question[12:100] for run in runs}) == len(runs)


def test_the_same_seed_gives_the_same_runs() -> None:
    assert small_trace().digest == small_trace().digest
    assert Trace(tuple(drawn(replace(SMALL, seed=2)))).digest != small_trace().digest


def test_too_few_recorded_runs_are_refused(tmp_path: Path) -> None:
    write_recorded(tmp_path, PLACES[:3])
    with pytest.raises(ValueError, match="too few for 6 runs"):
        recorded(tmp_path, replace(SMALL, repeated=0.0))


def test_a_file_keeps_a_trace(tmp_path: Path) -> None:
    trace = small_trace()
    trace.write(tmp_path / "trace.json")
    assert Trace.read(tmp_path / "trace.json") == trace


def test_a_search_takes_the_same_time_for_everybody() -> None:
    trace = small_trace()
    latencies = [trace.latency_s(str(number)) for number in range(500)]
    assert latencies == [small_trace().latency_s(str(number)) for number in range(500)]
    assert min(latencies) == 0.3
    assert max(latencies) == 4.0
    assert sorted(latencies)[250] == pytest.approx(0.9, rel=0.15)


def test_a_script_has_the_texts_a_tail_and_an_end(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trace = small_trace()
    script = script_of(trace, tokenizer, eos_id=3, num_tail_tokens=5)
    for run in trace.runs:
        *searches, last = script.turns[run.run]
        assert last == [*tokenizer.encode(run.last_text), 3]
        for search, ids in zip(run.searches, searches, strict=True):
            assert ids == [*tokenizer.encode(search.text), *observed(search, tokenizer)[:5], 3]
    script.write(tmp_path / "script.json")
    assert Script.read(tmp_path / "script.json") == script


def test_lengths_are_those_of_what_is_sent(tokenizer: Tokenizer) -> None:
    trace = small_trace()
    found = lengths(trace, tokenizer)
    [run, *_] = trace.runs
    prompt = tokenizer.encode_prompt(tokenizer.render(SEARCH_R1.prompt(run.question)))
    assert found[0].prompt_tokens == len(prompt)
    assert 0 < found[0].shared_tokens < len(prompt)
    assert [turn.num_sampled for turn in found[0].turns] == [len(tokenizer.encode(text)) for text in run.texts]
    assert [turn.query for turn in found[0].turns] == [*(search.query for search in run.searches), ""]
    assert found[0].turns[-1].passage_tokens == 0


def test_the_turn_is_found_however_the_text_is_wrapped() -> None:
    script = Script({"0001": [[1], [2], [3]], "0002": [[4]]}, eos_id=0)
    question = SEARCH_R1.prompt("(run 0001) Who?")
    closed = "<search> a </search>"
    assert script.ids_after(question) == [1]
    assert script.ids_after(f"{question}{closed}\n\n<information>x</information>") == [2]
    assert script.ids_after(f"{question}<|im_end|>{closed}<|im_end|>x<|im_end|>{closed}") == [3]
    assert script.ids_after(f"{question}{closed * 5}") == [3]
    assert script.ids_after("(run 0002) Who?") == [4]
    assert script.ids_after("(run 0003) Who?") is None
    assert script.ids_after("Who?") is None


def test_a_turn_that_is_asked_for_again_goes_on_where_it_broke_off() -> None:
    turn = [5, 6, 7, 8, 5, 6, 7, 8, 9]
    script, question = Script({"0001": [turn]}, eos_id=0), "(run 0001) Who?\n"
    for prompt in (question, f"{question}<think> a"):
        assert script.ids_left(prompt, [1, 2]) == turn
        for num in range(4, len(turn) + 1):
            assert script.ids_left(prompt, [1, 2, *turn[:num]]) == turn[num:]
    for num in range(1, 4):
        assert script.ids_left(question, [1, 2, *turn[:num]]) == turn
        assert script.ids_left(f"{question}<think", [1, 2, *turn[:num]]) == turn[num:]
    assert script.ids_left("Who?", turn[:4]) is None
