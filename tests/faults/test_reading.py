"""What the count of faults calls right: characters, events, and the engine that knows every answer."""

from pathlib import Path

import pytest

from loadtests.faults.__main__ import Counts, count
from loadtests.faults.engine import answering, question_of
from loadtests.faults.reading import Reading, expected
from loadtests.faults.scenarios import SCENARIOS, Scenario
from loadtests.faults.stack import running_stack
from searchr1.engines.base import SamplingParams
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from tests.engines.deterministic import encode
from tests.engines.pool.questions import answer_of, completion_of
from tests.engines.vllm.fake_vllm import Fault


def reading_of(text: str) -> Reading:
    return Reading(text=[text])


@pytest.mark.parametrize(
    ("read", "num_wrong"),
    [("the answer", 0), ("the anwer", 1), ("the ansanswer", 3), ("", 10), ("the answer!", 1), ("the_answer", 1)],
)
def test_missing_repeated_and_other_characters_count(read: str, num_wrong: int) -> None:
    assert reading_of(read).differences("the answer") == num_wrong


@pytest.mark.parametrize(("seqs", "num_gaps"), [((0, 1, 2), 0), ((0, 2), 1), ((0, 1, 1, 2), 1), ((1, 0), 2)])
def test_events_that_are_missing_twice_or_out_of_order_count(seqs: tuple[int, ...], num_gaps: int) -> None:
    reading = Reading()
    for seq in seqs:
        reading.take({"seq": seq, "type": "run.queued"})
    assert reading.num_gaps == num_gaps


def test_a_reader_is_expected_to_see_reasoning_query_and_answer() -> None:
    seen = expected(3)
    assert "I look for Reykjavík, number 3." in seen
    assert "who lives in Reykjavík 3" in seen
    assert seen.endswith(answer_of(3))
    assert "<" not in seen


@pytest.mark.parametrize("num_done", [0, 1, 7])
def test_the_engine_goes_on_where_a_completion_broke_off(num_done: int) -> None:
    prompt = encode(SEARCH_R1.prompt(question_of(5)))
    whole = encode(completion_of(5, 1))
    chunks = answering([*prompt, *whole[:num_done]], SamplingParams(500, ("</search>", "</answer>")))
    ids = [token for chunk in chunks for token in chunk.token_ids]
    assert whole[:num_done] + ids == whole[: num_done + len(ids)]
    assert chunks[-1].finish == "stop"


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.process
@pytest.mark.redis
async def test_runs_survive_connections_that_are_reset(tmp_path: Path) -> None:
    with running_stack(tmp_path, num_engines=1, num_gateways=1) as stack:
        counts = await count(Scenario("resets", of_calls=(Fault.DROP,)), stack, num_runs=12, at_once=6)
    assert counts.is_clean, counts.row("resets")


def test_a_run_without_an_end_is_lost() -> None:
    counts = Counts(num_runs=1)
    counts.add(0, Reading(end="engine_unavailable"))
    assert not counts.is_clean
    assert "1 engine_unavailable" in counts.row("x")
