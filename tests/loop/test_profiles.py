"""Every registered profile, held to what the loop, the sanitizer and the records expect of one.

A new profile adds a row to ``EXAMPLES``: turns that its policy may write, and how they are to be read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import ConfigurationError
from searchr1.loop.machine import Rollout
from searchr1.loop.neutralized import neutralized, recorded_profile
from searchr1.loop.profiles import registry
from searchr1.loop.profiles.base import Profile, last_boxed
from searchr1.loop.profiles.registry import profile_named, register, registered
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import Pair, Tags, TagScanner
from searchr1.loop.types import (
    ActionInvalid,
    AnswerCompleted,
    AnswerDelta,
    Finish,
    Finished,
    Generate,
    Limits,
    Passage,
    QuerySettled,
    Search,
    SearchRequested,
    Status,
    ThinkDelta,
)
from tests.hostile.detector import find_tag
from tests.loop.scripts import all_limits, chunkings, joined, model_texts, new_rollout, passages, play


@dataclass(frozen=True, slots=True)
class Example:
    """Turns of one family."""

    search: str
    """Searches for ``Mali``, after the thought ``I look.``"""
    answer: str
    """Answers ``Bamako``."""
    readings: tuple[tuple[str, str, str], ...]
    """Texts, each with its action and content; ``invalid`` where there is none."""


EXAMPLES = {
    "search-r1": Example(
        search="<think> I look. </think>\n<search> Mali </search>",
        answer="<think> I see. </think>\n<answer> Bamako </answer>",
        readings=(
            ("<search> a <search> b </search>", "search", "a <search> b"),
            ("<answer> \\boxed{a} </answer>", "answer", "\\boxed{a}"),
            ("<search></search>", "search", ""),
            ("</search>", "invalid", ""),
            ("<think> Hm. </think>", "invalid", ""),
        ),
    ),
    "research": Example(
        search="<think> I look. </think> <search> Mali </search>",
        answer="<think> I see. </think> <answer> The final answer is \\[ \\boxed{Bamako} \\] </answer>",
        readings=(
            ("<search> a <search> b </search>", "search", "b"),
            ("<answer> a <search> b </search>", "search", "b"),
            ("</search>", "search", ""),
            ("<answer> \\boxed{a}, no, \\boxed{ \\text{b} {c} } </answer>", "answer", "\\text{b} {c}"),
            ("<think> \\boxed{a} </think> <answer> b </answer>", "invalid", ""),
            ("<answer> \\boxed{a </answer>", "invalid", ""),
            ("<answer> \\boxed{a}", "invalid", ""),
            ("\\boxed{a} </answer>", "invalid", ""),
            ("<answer> \\boxed{} </answer>", "answer", ""),
        ),
    ),
    "search-o1": Example(
        search="I look.\n\n<|begin_search_query|>Mali<|end_search_query|>",
        answer="</think>I see. The answer is \\boxed{\\text{Bamako}}.",
        readings=(
            ("<|begin_search_query|> <|end_search_query|>", "invalid", ""),
            ("\\boxed{a} <|begin_search_query|><|end_search_query|>", "answer", "a"),
            ("\\boxed{a} <|begin_search_query|> q <|end_search_query|>", "search", "q"),
            ("<|end_search_query|>", "invalid", ""),
            ("<|begin_search_query|> \\boxed{a}", "answer", "a"),
            ("\\boxed{(B)} or rather \\boxed{(C) {d}}", "answer", "C) {d}"),
            ("<answer> a </answer>", "invalid", ""),
            ("Bamako", "invalid", ""),
        ),
    ),
}
EXAMPLES["research-base"] = EXAMPLES["research"]
PROFILES = registered()
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
FIJI = Passage("2", '"Fiji"', "Islands in the Pacific.")
NOTHING = "I am lost."
every_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: str(profile.name))


def shown(record_events: Sequence[object], kind: type[ThinkDelta] | type[AnswerDelta], turn: int) -> str:
    return "".join(e.text for e in record_events if isinstance(e, kind) and e.turn == turn)


def test_every_profile_has_a_row() -> None:
    assert {profile.name for profile in PROFILES} == EXAMPLES.keys()


# What it is.


@every_profile
def test_it_is_found_by_its_name(profile: Profile) -> None:
    assert profile_named(profile.name) is profile


@every_profile
def test_records_name_it_with_and_without_sanitizing(profile: Profile) -> None:
    assert recorded_profile(profile.name) is profile
    safe = neutralized(profile)
    assert safe.name == f"{profile.name}+sanitized"
    assert recorded_profile(safe.name) is safe


def test_records_of_earlier_versions_are_search_r1s() -> None:
    assert recorded_profile("faithful") is SEARCH_R1
    assert recorded_profile("sanitized") is neutralized(SEARCH_R1)


@pytest.mark.parametrize("name", ["other", "other+sanitized", "", "research+sanitized+sanitized", "faithful+sanitized"])
def test_an_unknown_name_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"there are {', '.join(sorted(EXAMPLES))}$"):
        recorded_profile(name)


def test_a_setting_names_no_sanitized_one() -> None:
    with pytest.raises(ConfigurationError, match="no profile 'search-r1\\+sanitized'"):
        profile_named("search-r1+sanitized")


def test_a_name_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PROFILES", registry.PROFILES.copy())
    other = Profile("mine", SEARCH_R1.tags, str.strip, SEARCH_R1.observation, SEARCH_R1.action)
    assert register(other) is register(other) is profile_named("mine")
    with pytest.raises(ValueError, match="two profiles are called 'mine'"):
        register(Profile("mine", SEARCH_R1.tags, str.strip, SEARCH_R1.observation, SEARCH_R1.action))
    with pytest.raises(ValueError, match="no '\\+'"):
        register(Profile("a+b", SEARCH_R1.tags, str.strip, SEARCH_R1.observation, SEARCH_R1.action))


@pytest.mark.parametrize("search", [Pair("search(", ")"), Pair("<a<b>", "</a>"), Pair("<>", "</a>"), Pair("<a", "<a>")])
def test_tags_that_a_scanner_could_not_tell_apart_are_refused(search: Pair) -> None:
    with pytest.raises(ValueError, match="tag"):
        Tags(search=search, observation=Pair.named("found"))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("\\boxed{a}", "a"),
        ("\\boxed{a} and \\boxed{b}", "b"),
        ("\\boxed{a} and \\boxed{b", "a"),
        ("\\boxed{{a}{b{c}}}", "{a}{b{c}}"),
        ("\\boxed{a \\boxed{b} c}", "b"),
        ("} { \\boxed{a}", "a"),
        ("\\boxed a", None),
        ("\\boxed{", None),
        ("\\boxed{\n a\n}", "\n a\n"),
        ("\\boxed{" * 50_000, None),
    ],
)
def test_boxes(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


# Its texts.


@every_profile
def test_the_prompt_holds_the_question_and_teaches_the_tags(profile: Profile) -> None:
    asked = " Who wrote {question}, %s or {0}?\n"
    messages = profile.messages(asked)
    assert [message["role"] for message in messages] == ["user"] if profile.system is None else ["system", "user"]
    assert messages[-1]["content"] == profile.prompt(asked)
    assert profile.prompt(asked).count(asked.strip()) == 1
    told = "".join(message["content"] for message in messages)
    assert all(tag in told for tag in (*profile.tags.search, *profile.tags.observation, *(profile.tags.answer or ())))
    assert "{question}" not in profile.prompt("x")


@every_profile
def test_an_observation_shows_the_passages_in_order_inside_its_tags(profile: Profile) -> None:
    text = profile.observation([MALI, FIJI])
    opening, closing = profile.tags.observation
    inner = text.partition(opening)[2].partition(closing)[0]
    places = [inner.find(part) for part in ("Mali", MALI.text, "Fiji", FIJI.text)]
    assert -1 not in places
    assert places == sorted(places)
    assert (text.count(opening), text.count(closing)) == (1, 1)
    assert text.strip().startswith(opening)
    assert text.strip().endswith(closing)


@every_profile
def test_a_search_that_found_nothing_has_an_observation_too(profile: Profile) -> None:
    text = profile.observation([])
    assert all(tag in text for tag in profile.tags.observation)


@every_profile
def test_neutralizing_changes_only_observations_of_passages_with_tags(profile: Profile) -> None:
    safe = neutralized(profile)
    assert safe.observation([MALI, FIJI]) == profile.observation([MALI, FIJI])
    assert (safe.tags, safe.prompt("q"), safe.retry, safe.system) == (
        profile.tags,
        profile.prompt("q"),
        profile.retry,
        profile.system,
    )


@every_profile
@pytest.mark.parametrize("served", PROFILES, ids=lambda profile: str(profile.name))
def test_no_tag_of_any_profile_gets_through_to_another(profile: Profile, served: Profile) -> None:
    for tag in profile.tags.all:
        for text in (tag, tag[:-1], tag.upper(), tag.replace("<", "&lt;"), tag.replace("<", "＜")):
            found = [Passage("1", "Mali", f"Bamako. {text} Accra"), Passage("2", f"{text} x", "y")]
            observation = neutralized(served).observation(found)
            opening, closing = served.tags.observation
            inner = observation.strip().removeprefix(opening).removesuffix(closing)
            assert not set("<＜&") & set(inner)
            assert find_tag(inner) is None
            assert "Accra" in inner


# How it is read.


@every_profile
def test_readings(profile: Profile) -> None:
    example = EXAMPLES[profile.name]
    for text, kind, content in (
        (example.search, "search", "Mali"),
        (example.answer, "answer", "Bamako"),
        (NOTHING, "invalid", ""),
        ("", "invalid", ""),
        *example.readings,
    ):
        assert profile.action(text) == (kind, content), text


@every_profile
@given(data=st.data())
def test_an_action_is_stripped_and_never_raises(profile: Profile, data: st.DataObject) -> None:
    kind, content = profile.action(data.draw(model_texts(profile.tags)))
    assert kind in ("search", "answer", "invalid")
    assert content == content.strip()
    assert content == "" or kind != "invalid"


# A rollout of it.


@every_profile
def test_a_search_and_an_answer(profile: Profile) -> None:
    example = EXAMPLES[profile.name]
    record = play(new_rollout(profile=profile), [[example.search], [example.answer]], [[MALI]])
    kinds = [event for event in record.events if not isinstance(event, ThinkDelta)]
    assert kinds == [
        QuerySettled(1, "Mali"),
        SearchRequested(1, "Mali"),
        AnswerDelta(2, "Bamako"),
        AnswerCompleted(2, "Bamako"),
        Finished(2, Status.COMPLETED),
    ]
    assert shown(record.events, ThinkDelta, 1) == "I look."
    assert shown(record.events, ThinkDelta, 2).startswith("I see.")
    assert [(s.kind, s.text, s.sampled) for s in record.rollout.segments[1:]] == [
        ("completion", example.search, True),
        ("observation", profile.observation([MALI]), False),
        ("completion", example.answer, True),
    ]
    assert [a.stop for a in record.actions if isinstance(a, Generate)] == [profile.tags.stops] * 2
    assert record.rollout.answer == "Bamako"


@every_profile
def test_text_after_a_turn_s_end_is_no_part_of_it(profile: Profile) -> None:
    example = EXAMPLES[profile.name]
    record = play(new_rollout(profile=profile), [[example.search, profile.tags.observation.open, " forged"]])
    assert record.rollout.segments[1].text == example.search


@every_profile
def test_a_turn_without_an_action(profile: Profile) -> None:
    record = play(new_rollout(profile=profile), [[NOTHING], [EXAMPLES[profile.name].answer]])
    assert ActionInvalid(1, "no_action") in record.events
    kinds = [segment.kind for segment in record.rollout.segments]
    if profile.retry is None:
        assert kinds == ["prompt", "completion"]
        assert record.actions[-1] == Finish(Status.EXHAUSTED)
    else:
        assert kinds == ["prompt", "completion", "retry", "completion"]
        assert record.rollout.segments[2].text == profile.retry
        assert record.actions[-1] == Finish(Status.COMPLETED)


@every_profile
@pytest.mark.parametrize(("num_sampled", "status"), [(7, Status.EXHAUSTED), (8, Status.TRUNCATED)])
def test_a_last_turn_that_the_budget_cuts_is_truncated(profile: Profile, num_sampled: int, status: Status) -> None:
    rollout = new_rollout(Limits(max_turns=0, max_run_tokens=8), profile)
    rollout.receive_text(NOTHING, range(num_sampled))
    rollout.end_completion("length")
    assert rollout.status is status


@every_profile
def test_a_search_with_search_off_ends_it(profile: Profile) -> None:
    record = play(new_rollout(Limits(max_turns=0), profile), [[EXAMPLES[profile.name].search]])
    assert record.events[-2:] == (ActionInvalid(1, "search_off"), Finished(1, Status.EXHAUSTED))


@every_profile
@given(data=st.data(), limits=all_limits())
def test_chunking_changes_nothing(profile: Profile, data: st.DataObject, limits: Limits) -> None:
    texts = data.draw(st.lists(model_texts(profile.tags), min_size=6, max_size=6))
    results = data.draw(st.lists(passages(profile.tags), max_size=5))
    whole = play(new_rollout(limits, profile), [[text] for text in texts], results)
    torn = play(new_rollout(limits, profile), [data.draw(chunkings(text)) for text in texts], results)
    assert torn.actions == whole.actions
    assert torn.rollout.segments == whole.rollout.segments
    assert joined(torn.events) == joined(whole.events)


@every_profile
@given(data=st.data(), limits=all_limits())
def test_passages_never_move_the_state(profile: Profile, data: st.DataObject, limits: Limits) -> None:
    texts = data.draw(st.lists(model_texts(profile.tags), min_size=6, max_size=6))
    results = data.draw(st.lists(passages(profile.tags), max_size=5))
    one = play(new_rollout(limits, profile), [[text] for text in texts], results)
    other = play(new_rollout(limits, profile), [[text] for text in texts], [[MALI]] * 5)
    assert one.requests == other.requests
    assert one.events == other.events
    assert one.rollout.answer == other.rollout.answer


@every_profile
@given(data=st.data())
def test_the_answer_is_told_as_it_is_kept(profile: Profile, data: st.DataObject) -> None:
    texts = data.draw(st.lists(model_texts(profile.tags), min_size=6, max_size=6))
    record = play(new_rollout(profile=profile), [list(text) for text in texts])
    last = record.rollout.num_turns
    completed = [event for event in record.events if isinstance(event, AnswerCompleted)]
    if record.rollout.status is Status.COMPLETED:
        assert completed == [AnswerCompleted(last, shown(record.events, AnswerDelta, last))]
        assert record.rollout.answer == completed[0].text
    else:
        assert (completed, record.rollout.answer) == ([], None)


@every_profile
@given(data=st.data())
def test_thoughts_are_what_stands_before_an_action_without_its_tags(profile: Profile, data: st.DataObject) -> None:
    text, tags = data.draw(model_texts(profile.tags)), profile.tags
    streamed = tags.answer if tags.answer and tags.streams_answer else None
    ends = [*tags.stops, tags.search.open, *((streamed.open,) if streamed else ())]
    before = re.split("|".join(map(re.escape, ends)), text, maxsplit=1)[0]
    dropped = [*(tags.think or ()), *tags.hidden, *((tags.answer.open,) if tags.answer else ())]
    scanner = TagScanner(tags)
    pieces = [piece for chunk in data.draw(chunkings(text)) for piece in scanner.feed(chunk)]
    pieces += [] if scanner.settled else scanner.close()
    thought = "".join(piece.text for piece in pieces if piece.kind == "think")
    assert thought == re.sub("|".join(map(re.escape, dropped)), "", before).strip()


@every_profile
def test_the_scanner_keeps_every_character_up_to_the_stop(profile: Profile) -> None:
    example = EXAMPLES[profile.name]
    for text in (example.search, example.answer, NOTHING):
        scanner = TagScanner(profile.tags)
        for character in text:
            scanner.feed(character)
        assert scanner.text == text
        assert scanner.settled == text.endswith(profile.tags.stops)


@every_profile
def test_it_is_the_rollouts_own_in_records(profile: Profile) -> None:
    rollout: Rollout = new_rollout(profile=neutralized(profile))
    assert recorded_profile(rollout.profile.name) is rollout.profile
    assert not isinstance(rollout.action, Search)
