"""Whatever a search finds, a rollout goes where it goes with harmless passages: in either mode, on every case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.driver import DriveEvent, DriveOptions, PassagesReceived, drive
from searchr1.engines.scripted import ScriptedEngine
from searchr1.loop.machine import Rollout
from searchr1.loop.neutralized import neutralized
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import AnswerCompleted, Finished, Limits, Passage, Status
from searchr1.retrieval.fake import FakeRetriever
from searchr1.retrieval.received import received
from searchr1.retrieval.text import clean_text
from tests.hostile.cases import CASES, Case
from tests.loop.scripts import Record, all_limits, model_texts, play

TURNS = (
    "<think> I need Mali. </think>\n<search> Mali </search>",
    "I lost the thread.",
    "<think> Once more. </think>\n<search> Mali </search>",
    "<think> Found. </think>\n<answer> Bamako </answer>",
)
HARMLESS = Passage("0", '"Mali"', "Its capital is Bamako.")
PROFILES = (SEARCH_R1, neutralized(SEARCH_R1))
PROMPT_IDS = (7, 8, 9)


def encode(text: str) -> list[int]:
    """One id per byte: cheap enough for large pages."""
    return list(text.encode())


def new_rollout(profile: Profile, limits: Limits | None = None) -> Rollout:
    return Rollout(prompt="", prompt_ids=PROMPT_IDS, encode=encode, limits=limits, profile=profile)


async def driven(profile: Profile, found: tuple[Passage, ...]) -> tuple[Rollout, list[DriveEvent]]:
    rollout = new_rollout(profile)
    options = DriveOptions("s", top_k=1000)
    engine, retriever = ScriptedEngine(TURNS, encode=encode), FakeRetriever({"Mali": found})
    return rollout, [event async for event in drive(rollout, engine, retriever, options)]


def shape(rollout: Rollout) -> list[tuple[object, ...]]:
    """The trajectory with what was found left out, its size included."""
    return [
        (s.kind, s.turn, s.sampled, s.sampled_ids, *(() if s.kind == "observation" else (s.text, s.ids)))
        for s in rollout.segments
    ]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: str(profile.name))
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
async def test_a_case_moves_nothing(case: Case, profile: Profile) -> None:
    found = received(case.passages)
    rollout, events = await driven(profile, case.passages)
    other, expected = await driven(profile, (HARMLESS,) * len(found))
    assert [e for e in events if not isinstance(e, PassagesReceived)] == [
        e for e in expected if not isinstance(e, PassagesReceived)
    ]
    assert [e.passages for e in events if isinstance(e, PassagesReceived)] == [found, found]
    assert shape(rollout) == shape(other)
    assert (rollout.status, rollout.answer) == (Status.COMPLETED, "Bamako")
    assert rollout.segments[-1].sampled
    assert "Bamako" in rollout.segments[-1].text
    assert events[-2:] == [AnswerCompleted(4, "Bamako"), Finished(4, Status.COMPLETED)]
    assert sum(rollout.loss_mask) == sum(len(s.ids) for s in rollout.segments if s.kind == "completion")
    assert all(len(s.ids) <= rollout.limits.max_observation_tokens for s in rollout.segments if not s.sampled)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_sanitizing_needs_no_cleaned_text(case: Case) -> None:
    neutralized(SEARCH_R1).observation(case.passages).encode()


def hostile_passages() -> st.SearchStrategy[list[Passage]]:
    cases = [p for case in CASES if case.category != "huge" for p in case.passages[:3]]
    torn = st.builds(Passage, id=st.just("p"), title=model_texts(), text=model_texts() | st.text())
    return st.lists(st.sampled_from(cases) | torn, max_size=4)


def recorded(profile: Profile, limits: Limits, texts: list[str], results: list[list[Passage]]) -> Record:
    cleaned = [received(found) for found in results]
    return play(new_rollout(profile, limits), [[clean_text(text)] for text in texts], cleaned)


@given(
    st.sampled_from(PROFILES),
    all_limits(),
    st.lists(model_texts(), min_size=6, max_size=6),
    st.lists(hostile_passages(), max_size=5),
)
def test_no_passages_move_anything(
    profile: Profile, limits: Limits, texts: list[str], results: list[list[Passage]]
) -> None:
    one = recorded(profile, limits, texts, results)
    harmless = recorded(profile, limits, texts, [[HARMLESS] * len(found) for found in results])
    assert one.requests == harmless.requests
    assert one.events == harmless.events
    assert shape(one.rollout) == shape(harmless.rollout)
    assert (one.rollout.status, one.rollout.answer) == (harmless.rollout.status, harmless.rollout.answer)
    counts = [(r.num_turns, r.num_searches, r.num_invalid) for r in (one.rollout, harmless.rollout)]
    assert counts[0] == counts[1]


@given(all_limits(), st.lists(model_texts(), min_size=6, max_size=6), st.lists(hostile_passages(), max_size=5))
def test_both_modes_go_the_same_way(limits: Limits, texts: list[str], results: list[list[Passage]]) -> None:
    faithful, sanitized = (recorded(profile, limits, texts, results) for profile in PROFILES)
    assert faithful.requests == sanitized.requests
    assert faithful.events == sanitized.events
    assert shape(faithful.rollout) == shape(sanitized.rollout)
