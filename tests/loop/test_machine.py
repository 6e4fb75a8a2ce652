"""The state machine, rule by rule: what each kind of turn does to a rollout."""

import dataclasses

import pytest

from searchr1.errors import IllegalInputError
from searchr1.loop.profiles.search_r1 import RETRY, SEARCH_R1
from searchr1.loop.types import (
    ActionInvalid,
    AnswerCompleted,
    AnswerDelta,
    Finish,
    Finished,
    FinishReason,
    Generate,
    Limits,
    LoopEvent,
    Passage,
    QuerySettled,
    Search,
    SearchRequested,
    Status,
    ThinkDelta,
)
from tests.loop.scripts import PROMPT_IDS, encode, new_rollout, play

SEARCH = ["<think> t </think>\n<search> Mali </search>"]
ANSWER = ["<think> u </think>\n<answer> Bamako </answer>"]
NOTHING = ["I am lost."]
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
MALI_BLOCK = '\n\n<information>Doc 1(Title: "Mali") Its capital is Bamako.</information>\n\n'


def test_a_search_and_an_answer() -> None:
    record = play(new_rollout(), [SEARCH, ANSWER], [[MALI]])
    assert record.events == (
        ThinkDelta(1, "t"),
        QuerySettled(1, "Mali"),
        SearchRequested(1, "Mali"),
        ThinkDelta(2, "u"),
        AnswerDelta(2, "Bamako"),
        AnswerCompleted(2, "Bamako"),
        Finished(2, Status.COMPLETED),
    )
    rollout = record.rollout
    assert (rollout.answer, rollout.num_turns, rollout.num_searches, rollout.num_invalid) == ("Bamako", 2, 1, 0)
    assert [(s.kind, s.turn, s.text, s.sampled) for s in rollout.segments] == [
        ("prompt", 0, "the prompt", False),
        ("completion", 1, SEARCH[0], True),
        ("observation", 1, MALI_BLOCK, False),
        ("completion", 2, ANSWER[0], True),
    ]


def test_what_is_asked_for() -> None:
    record = play(new_rollout(), [SEARCH, ANSWER], [[MALI]])
    context = (*PROMPT_IDS, *encode(SEARCH[0]), *encode(MALI_BLOCK))
    assert record.actions == (
        Generate(1, PROMPT_IDS, 500, SEARCH_R1.tags.stops),
        Search(1, "Mali"),
        Generate(2, context, 500, SEARCH_R1.tags.stops),
        Finish(Status.COMPLETED),
    )
    assert encode(SEARCH[0] + MALI_BLOCK) != encode(SEARCH[0]) + encode(MALI_BLOCK)


def test_a_turn_without_an_action_gets_the_retry_text() -> None:
    record = play(new_rollout(), [NOTHING, ANSWER])
    assert record.events[:2] == (ThinkDelta(1, "I am lost."), ActionInvalid(1, "no_action"))
    assert record.rollout.segments[2].text == RETRY
    assert record.rollout.loss_mask == (
        *(False for _ in PROMPT_IDS),
        *(True for _ in encode(NOTHING[0])),
        *(False for _ in encode(RETRY)),
        *(True for _ in encode(ANSWER[0])),
    )


def test_a_bare_end_of_sequence_is_a_turn_without_an_action() -> None:
    record = play(new_rollout(), [[], ANSWER])
    assert record.events[0] == ActionInvalid(1, "no_action")
    assert [(s.kind, len(s.ids)) for s in record.rollout.segments[1:3]] == [
        ("completion", 0),
        ("retry", len(encode(RETRY))),
    ]


def test_the_ids_that_were_sampled_are_kept_beside_those_that_enter_the_context() -> None:
    rollout = new_rollout()
    rollout.receive_text("<answer> a </answer>", (1, 2))
    rollout.receive_text("\n\n", (3,))
    rollout.end_completion("stop")
    completion = rollout.segments[1]
    assert completion.text == "<answer> a </answer>"
    assert completion.ids == tuple(encode("<answer> a </answer>"))
    assert completion.sampled_ids == (1, 2, 3)
    assert rollout.num_sampled_tokens == 3


def test_an_open_rollout_gets_one_more_completion_with_search_off() -> None:
    record = play(new_rollout(Limits(max_turns=2)), [SEARCH, SEARCH, ANSWER])
    assert record.rollout.status is Status.COMPLETED
    assert (record.rollout.num_turns, record.rollout.num_searches) == (3, 2)
    assert [s.kind for s in record.rollout.segments[-2:]] == ["observation", "completion"]


def test_a_search_in_the_last_turn_is_not_run() -> None:
    record = play(new_rollout(Limits(max_turns=2)), [SEARCH, SEARCH, SEARCH])
    assert record.events[-3:] == (ThinkDelta(3, "t"), ActionInvalid(3, "search_off"), Finished(3, Status.EXHAUSTED))
    assert (record.rollout.num_searches, record.rollout.answer) == (2, None)
    assert record.rollout.segments[-1].kind == "completion"


def test_an_invalid_last_turn_puts_no_retry_text_in() -> None:
    record = play(new_rollout(Limits(max_turns=1)), [NOTHING, NOTHING])
    assert [s.kind for s in record.rollout.segments] == ["prompt", "completion", "retry", "completion"]
    assert record.rollout.status is Status.EXHAUSTED


@pytest.mark.parametrize("limits", [Limits(max_searches=0), Limits(max_turns=0)])
def test_closed_book_is_one_completion(limits: Limits) -> None:
    record = play(new_rollout(limits), [SEARCH])
    assert record.events == (ThinkDelta(1, "t"), ActionInvalid(1, "search_off"), Finished(1, Status.EXHAUSTED))


def test_the_last_allowed_search_leaves_one_completion() -> None:
    record = play(new_rollout(Limits(max_searches=1)), [SEARCH, SEARCH])
    assert (record.rollout.num_turns, record.rollout.status) == (2, Status.EXHAUSTED)


def test_an_empty_query_is_a_search() -> None:
    record = play(new_rollout(), [["<search> </search>"], ANSWER])
    assert record.actions[1] == Search(1, "")
    assert record.rollout.num_searches == 1


def test_an_empty_answer_is_an_answer() -> None:
    record = play(new_rollout(), [["<answer> </answer>"]])
    assert record.events == (AnswerCompleted(1, ""), Finished(1, Status.COMPLETED))
    assert record.rollout.answer == ""


def test_an_answer_that_was_held_back_as_a_query_is_told_whole() -> None:
    record = play(new_rollout(), [["<search> a <answer> b </answer>"]])
    assert record.events == (AnswerDelta(1, "b"), AnswerCompleted(1, "b"), Finished(1, Status.COMPLETED))


def test_answer_text_of_a_turn_that_then_searches_is_void() -> None:
    record = play(new_rollout(), [["<answer> a <search> q </search>"], ANSWER])
    assert record.events[:2] == (AnswerDelta(1, "a <search> q"), SearchRequested(1, "q"))
    assert record.rollout.answer == "Bamako"


@pytest.mark.parametrize("kept", [0, 1, 5])
def test_a_long_observation_keeps_its_first_tokens(kept: int) -> None:
    record = play(new_rollout(Limits(max_observation_tokens=kept)), [SEARCH, ANSWER], [[MALI]])
    observation = record.rollout.segments[2]
    assert observation.text == MALI_BLOCK
    assert observation.ids == tuple(encode(MALI_BLOCK)[:kept])


def test_the_retry_text_is_cut_as_an_observation_is() -> None:
    record = play(new_rollout(Limits(max_observation_tokens=3)), [NOTHING, ANSWER])
    assert record.rollout.segments[2].ids == tuple(encode(RETRY)[:3])


def test_a_completion_is_never_cut() -> None:
    record = play(new_rollout(Limits(max_observation_tokens=1, max_completion_tokens=1)), [ANSWER])
    assert record.rollout.segments[1].ids == tuple(encode(ANSWER[0]))


def test_the_context_is_cut_on_the_left_and_the_trajectory_is_not() -> None:
    record = play(new_rollout(Limits(max_context_tokens=5)), [SEARCH, ANSWER], [[MALI]])
    second = record.actions[2]
    assert isinstance(second, Generate)
    assert second.prompt_ids == tuple(encode(MALI_BLOCK)[-5:])
    assert record.rollout.ids[:3] == PROMPT_IDS


def finish(limits: Limits, ids_per_turn: int, texts: list[str], reason: FinishReason = "length") -> Status | None:
    rollout = new_rollout(limits)
    for text in texts:
        rollout.receive_text(text, range(ids_per_turn))
        rollout.end_completion(reason)
        if isinstance(rollout.action, Search):
            rollout.receive_passages([MALI])
    return rollout.status


@pytest.mark.parametrize(("reason", "shown"), [("length", []), ("stop", [ThinkDelta(1, "<think")])])
def test_half_a_tag_is_shown_only_where_the_model_ended_its_text(reason: FinishReason, shown: list[LoopEvent]) -> None:
    rollout = new_rollout(Limits(max_run_tokens=1))
    assert rollout.receive_text("<think", [1]) == []
    assert [event for event in rollout.end_completion(reason) if isinstance(event, ThinkDelta)] == shown
    assert rollout.segments[1].text == "<think"


def test_a_completion_may_take_what_the_budget_has_left() -> None:
    rollout = new_rollout(Limits(max_run_tokens=12, max_completion_tokens=8))
    rollout.receive_text("hm", range(8))
    rollout.end_completion("length")
    assert isinstance(rollout.action, Generate)
    assert rollout.action.max_tokens == 4


@pytest.mark.parametrize("text", ["no action", SEARCH[0]])
def test_a_spent_budget_truncates(text: str) -> None:
    assert finish(Limits(max_run_tokens=8), 8, [text]) is Status.TRUNCATED


def test_a_search_that_nothing_could_read_is_not_run() -> None:
    rollout = new_rollout(Limits(max_run_tokens=8))
    rollout.receive_text(SEARCH[0], range(8))
    assert rollout.end_completion("stop") == [Finished(1, Status.TRUNCATED)]
    assert rollout.num_searches == 0


def test_an_answer_on_the_last_token_counts() -> None:
    assert finish(Limits(max_run_tokens=8), 8, [ANSWER[0]]) is Status.COMPLETED


def test_a_last_turn_that_the_budget_cut_short_is_truncated() -> None:
    assert finish(Limits(max_turns=0, max_run_tokens=8), 8, ["no"]) is Status.TRUNCATED


def test_a_last_turn_that_ended_by_itself_is_exhausted() -> None:
    assert finish(Limits(max_turns=0, max_run_tokens=8), 8, ["no"], "stop") is Status.EXHAUSTED


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.DEADLINE, Status.FAILED])
def test_a_stop_records_the_text_in_flight(status: Status) -> None:
    rollout = new_rollout()
    rollout.receive_text("<think> half a", (1, 2))
    assert rollout.stop(status) == [Finished(1, status)]
    assert rollout.status is status
    assert [(s.text, s.sampled_ids) for s in rollout.segments[1:]] == [("<think> half a", (1, 2))]


def test_a_stop_before_any_text_records_nothing() -> None:
    rollout = new_rollout()
    rollout.stop(Status.CANCELLED)
    assert len(rollout.segments) == 1


def test_a_stop_during_a_search_keeps_its_turn() -> None:
    rollout = new_rollout()
    rollout.receive_text(SEARCH[0])
    rollout.end_completion("stop")
    rollout.stop(Status.DEADLINE)
    assert [s.kind for s in rollout.segments] == ["prompt", "completion"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.EXHAUSTED, Status.TRUNCATED])
def test_the_loop_s_own_statuses_do_not_come_from_outside(status: Status) -> None:
    rollout = new_rollout()
    with pytest.raises(IllegalInputError, match=status):
        rollout.stop(status)
    assert rollout.status is None


def test_errors_do_not_print_the_prompt() -> None:
    with pytest.raises(IllegalInputError) as caught:
        new_rollout().receive_passages([])
    assert str(caught.value) == "passages came while the rollout waits for Generate"


@pytest.mark.parametrize(
    "bad",
    [
        {"max_turns": -1},
        {"max_searches": -1},
        {"max_completion_tokens": 0},
        {"max_observation_tokens": -1},
        {"max_context_tokens": 0},
        {"max_trajectory_tokens": 0},
        {"max_run_tokens": 0},
    ],
)
def test_limits_that_cannot_be_kept(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        dataclasses.replace(Limits(), **bad)


def told_so_far(text: str, limits: Limits | None = None) -> list[LoopEvent]:
    return new_rollout(limits).receive_text(text, (1,))


def test_a_query_is_settled_before_its_closing_tag_is_whole() -> None:
    rollout = new_rollout()
    assert rollout.receive_text("<search> Ma") == []
    assert rollout.receive_text("li </sear") == []
    assert rollout.receive_text("ch") == [QuerySettled(1, "Mali")]
    assert rollout.receive_text(">") == []
    assert rollout.end_completion("stop") == [SearchRequested(1, "Mali")]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("<search> q </search", "q"),
        ("<search></search", ""),
        ("<search> a </sea </search", "a </sea"),
        ("<search> a <search> b </search", "a <search> b"),
        ("<search> <answer> a </search", "<answer> a"),
    ],
)
def test_settled_queries(text: str, query: str) -> None:
    assert told_so_far(text) == [QuerySettled(1, query)]


@pytest.mark.parametrize(
    "text",
    [
        "<search> q </sear",
        "</search",
        "<Search> q </search",
        "<search> q </Search",
        "<search> q </answer> </search",
        "<search> q </ search",
    ],
)
def test_a_query_that_is_not_settled(text: str) -> None:
    assert [e for e in told_so_far(text) if isinstance(e, QuerySettled)] == []


def test_a_search_inside_an_answer_is_not_settled_early() -> None:
    """Its text streams as an answer, so its query would be told between two deltas that depend on the chunking."""
    record = play(new_rollout(), [["<answer> a <search> b </search>"]])
    assert [e for e in record.events if isinstance(e, QuerySettled)] == []
    assert record.actions[1] == Search(1, "b")


def test_a_settled_query_may_go_on() -> None:
    rollout = new_rollout()
    assert rollout.receive_text("<search> q </search") == [QuerySettled(1, "q")]
    assert rollout.receive_text("ing </search>") == []
    assert rollout.end_completion("stop") == [SearchRequested(1, "q </searching")]


@pytest.mark.parametrize("limits", [Limits(max_turns=0), Limits(max_searches=0)])
def test_no_query_is_settled_with_search_off(limits: Limits) -> None:
    assert told_so_far("<search> q </search>", limits) == []
