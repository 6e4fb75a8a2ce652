"""The transition table of ``machine.py``, held to the code: each row driven, every walk within it, the rest illegal."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import IllegalInputError
from searchr1.loop import machine
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named, registered
from searchr1.loop.types import (
    Action,
    AnswerDelta,
    Finish,
    FinishReason,
    Limits,
    LoopEvent,
    Passage,
    QuerySettled,
    Status,
    ThinkDelta,
)
from tests.loop.scripts import all_limits, model_texts, new_rollout

DOCS = (Path(__file__).parents[2] / "docs" / "reference" / "loop.md").read_text("utf-8")
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
SEARCH, ANSWER, NOTHING = "<search> Mali </search>", "<answer> Bamako </answer>", "I am lost."
FROM_OUTSIDE = (Status.CANCELLED, Status.DEADLINE, Status.FAILED)
NO_RETRY = profile_named("research")


@dataclass(frozen=True, slots=True)
class Row:
    """One transition."""

    action: str
    input: str
    condition: str
    next: str
    events: str
    segments: str


def table(text: str) -> list[Row]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    start = next(i for i, row in enumerate(cells) if row[0] == "action")
    rows = [row for row in cells[start + 2 :] if row[0] in ("Generate", "Search", "Finish")]
    return [Row(*row) for row in rows]


TABLE = table(machine.__doc__ or "")


@dataclass(frozen=True, slots=True)
class Step:
    """The effect of one input."""

    next: str
    events: str
    segments: str

    @classmethod
    def of(cls, rollout: Rollout, feed: Callable[[], Sequence[LoopEvent]]) -> "Step":
        """Give an input, and write down what came of it as the table does. Deltas are left out."""
        num_segments = len(rollout.segments)
        events = [e for e in feed() if not isinstance(e, ThinkDelta | AnswerDelta | QuerySettled)]
        added = rollout.segments[num_segments:]
        return cls(
            shown(rollout.action),
            ", ".join(type(event).__name__ for event in events),
            ", ".join(segment.kind for segment in added),
        )


def shown(action: Action) -> str:
    if not isinstance(action, Finish):
        return type(action).__name__
    return "Finish from outside" if action.status in FROM_OUTSIDE else f"Finish {action.status}"


def step_of(row: Row) -> Step:
    return Step(row.next, "" if row.input == "text" else row.events, row.segments)


# Each row, driven.


def end(
    text: str,
    limits: Limits | None = None,
    profile: Profile | None = None,
    reason: FinishReason = "stop",
    *,
    ids: int = 1,
) -> Step:
    rollout = new_rollout(limits, profile or profile_named("search-r1"))
    rollout.receive_text(text, range(ids))
    return Step.of(rollout, lambda: rollout.end_completion(reason))


def stop(*texts: str, ids: int = 1) -> Step:
    rollout = new_rollout()
    for text in texts:
        rollout.receive_text(text, range(ids))
        if text.endswith(">"):
            rollout.end_completion("stop")
    return Step.of(rollout, lambda: rollout.stop(Status.CANCELLED))


def text(written: str) -> Step:
    rollout = new_rollout()
    return Step.of(rollout, lambda: rollout.receive_text(written, (1,)))


def found() -> Step:
    rollout = new_rollout()
    rollout.receive_text(SEARCH)
    rollout.end_completion("stop")
    return Step.of(rollout, lambda: rollout.receive_passages([MALI]))


LAST, SPENT = Limits(max_turns=0), Limits(max_run_tokens=8)
LAST_AND_SPENT = Limits(max_turns=0, max_run_tokens=8)
DRIVEN: dict[tuple[str, str, str], list[Callable[[], Step]]] = {
    ("Generate", "text", "always"): [lambda: text("a"), lambda: text(SEARCH), lambda: text(ANSWER)],
    ("Generate", "end", "answer"): [lambda: end(ANSWER), lambda: end(ANSWER, LAST_AND_SPENT, ids=8)],
    ("Generate", "end", "search, on"): [lambda: end(SEARCH), lambda: end(SEARCH, SPENT, ids=7)],
    ("Generate", "end", "search, on, spent"): [lambda: end(SEARCH, SPENT, ids=8)],
    ("Generate", "end", "search, off"): [
        lambda: end(SEARCH, LAST),
        lambda: end(SEARCH, Limits(max_searches=0)),
        lambda: end(SEARCH, LAST_AND_SPENT, ids=8),
        lambda: end(SEARCH, LAST_AND_SPENT, reason="length", ids=7),
    ],
    ("Generate", "end", "search, off, spent at the length limit"): [
        lambda: end(SEARCH, LAST_AND_SPENT, reason="length", ids=8)
    ],
    ("Generate", "end", "no action, on"): [lambda: end(NOTHING), lambda: end("", reason="length", ids=0)],
    ("Generate", "end", "no action, on, spent"): [
        lambda: end(NOTHING, SPENT, ids=8),
        lambda: end(NOTHING, SPENT, reason="length", ids=8),
    ],
    ("Generate", "end", "no action, off"): [
        lambda: end(NOTHING, LAST),
        lambda: end(NOTHING, profile=NO_RETRY),
        lambda: end(NOTHING, LAST_AND_SPENT, ids=8),
        lambda: end(NOTHING, SPENT, NO_RETRY, "length", ids=7),
    ],
    ("Generate", "end", "no action, off, spent at the length limit"): [
        lambda: end(NOTHING, LAST_AND_SPENT, reason="length", ids=8),
        lambda: end(NOTHING, SPENT, NO_RETRY, "length", ids=8),
    ],
    ("Generate", "stop", "text or ids came"): [lambda: stop("a"), lambda: stop("a", ids=0), lambda: stop("")],
    ("Generate", "stop", "nothing came"): [stop, lambda: stop("", ids=0)],
    ("Search", "passages", "always"): [found],
    ("Search", "stop", "always"): [lambda: stop(SEARCH)],
}


def test_the_table_and_what_is_driven_have_the_same_rows() -> None:
    rows = [(row.action, row.input, row.condition) for row in TABLE]
    assert len(set(rows)) == len(rows)
    assert set(rows) == DRIVEN.keys()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.action}-{row.input}-{row.condition}")
def test_a_row(row: Row) -> None:
    for drive in DRIVEN[row.action, row.input, row.condition]:
        assert drive() == step_of(row)


# Every walk stays within the table, and what it does not have is illegal.


LEGAL = {(row.action, row.input) for row in TABLE}
STEPS = {(row.action, row.input, step_of(row)) for row in TABLE}


def test_a_finished_rollout_takes_nothing() -> None:
    assert {action for action, _ in LEGAL} == {"Generate", "Search"}


@given(st.data(), st.sampled_from(registered()), all_limits())
def test_any_walk_stays_within_the_table(data: st.DataObject, profile: Profile, limits: Limits) -> None:
    rollout = new_rollout(limits, profile)
    inputs: dict[str, Callable[[], Sequence[LoopEvent]]] = {
        "text": lambda: rollout.receive_text(
            data.draw(model_texts(profile.tags)), range(data.draw(st.integers(0, 40)))
        ),
        "end": lambda: rollout.end_completion(data.draw(st.sampled_from(("stop", "length")))),
        "passages": lambda: rollout.receive_passages([MALI]),
        "stop": lambda: rollout.stop(data.draw(st.sampled_from(FROM_OUTSIDE))),
    }
    walk = st.lists(st.sampled_from([*inputs, "text", "end", "passages"]), max_size=24)
    for name in data.draw(walk):
        action = type(rollout.action).__name__
        if (action, name) in LEGAL:
            assert (action, name, Step.of(rollout, inputs[name])) in STEPS
            continue
        before = (rollout.action, rollout.segments, rollout.num_sampled_tokens, rollout.num_turns)
        with pytest.raises(IllegalInputError):
            inputs[name]()
        assert (rollout.action, rollout.segments, rollout.num_sampled_tokens, rollout.num_turns) == before


# docs/reference/loop.md.


def test_the_page_has_the_same_table() -> None:
    assert table(DOCS.replace("`", "")) == TABLE


def test_the_picture_has_the_tables_arrows() -> None:
    picture = re.search(r"```mermaid\n(.*?)```", DOCS, re.DOTALL)
    assert picture is not None
    arrows = set(re.findall(r"^\s*(\w+) --> (\w+):", picture[1], re.MULTILINE))
    assert arrows == {(row.action, row.next.split()[0]) for row in TABLE}
