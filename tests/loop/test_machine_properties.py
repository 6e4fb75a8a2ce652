"""The state machine under any text, any chunking, any limits and any order of inputs."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from searchr1.errors import IllegalInputError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import (
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
    Status,
)
from tests.loop.scripts import all_limits, chunkings, joined, model_texts, new_rollout, passages, play

COMPLETIONS = st.lists(model_texts(), min_size=6, max_size=6)
RESULTS = st.lists(passages(), max_size=5)
FROM_OUTSIDE = (Status.CANCELLED, Status.DEADLINE, Status.FAILED)
REASONS: tuple[FinishReason, ...] = ("stop", "length")


@given(st.data(), all_limits(), COMPLETIONS, RESULTS)
def test_chunking_changes_nothing(
    data: st.DataObject, limits: Limits, texts: list[str], results: list[list[Passage]]
) -> None:
    whole = play(new_rollout(limits), [[text] for text in texts], results)
    torn = play(new_rollout(limits), [data.draw(chunkings(text)) for text in texts], results)
    assert torn.actions == whole.actions
    assert torn.rollout.segments == whole.rollout.segments
    assert torn.rollout.ids == whole.rollout.ids
    assert torn.rollout.loss_mask == whole.rollout.loss_mask
    assert joined(torn.events) == joined(whole.events)


@given(all_limits(), COMPLETIONS, RESULTS, RESULTS)
def test_passages_never_move_the_state(
    limits: Limits, texts: list[str], results: list[list[Passage]], others: list[list[Passage]]
) -> None:
    completions = [[text] for text in texts]
    one = play(new_rollout(limits), completions, results)
    other = play(new_rollout(limits), completions, others)
    assert one.requests == other.requests
    assert one.events == other.events
    sampled = [[s for s in record.rollout.segments if s.sampled] for record in (one, other)]
    assert sampled[0] == sampled[1]


@given(all_limits(), COMPLETIONS)
def test_a_search_whose_query_was_settled_asks_for_it_unless_its_text_went_on(limits: Limits, texts: list[str]) -> None:
    record = play(new_rollout(limits), [list(text) for text in texts])
    asked = {action.turn: action.query for action in record.actions if isinstance(action, Search)}
    settled = [event for event in record.events if isinstance(event, QuerySettled)]
    written = {s.turn: s.text for s in record.rollout.segments if s.sampled}
    assert len({event.turn for event in settled}) == len(settled)
    for event in settled:
        head, _, rest = written[event.turn].partition("<search>")[2].partition("</search")
        assert event.query == head.strip()
        if rest == ">" and event.turn in asked:
            assert asked[event.turn] == event.query
    for turn in asked:
        opened_by = min((written[turn].find(tag), tag) for tag in ("<search>", "<answer>") if tag in written[turn])[1]
        assert (turn in {event.turn for event in settled}) == (opened_by == "<search>")


@given(all_limits(), COMPLETIONS)
def test_every_rollout_ends_within_one_completion_more_than_its_turns(limits: Limits, texts: list[str]) -> None:
    record = play(new_rollout(limits), [list(text) for text in texts])
    num_generations = sum(isinstance(action, Generate) for action in record.actions)
    assert isinstance(record.actions[-1], Finish)
    assert num_generations == record.rollout.num_turns <= limits.max_turns + 1
    assert record.rollout.num_searches <= limits.max_turns
    assert sum(isinstance(event, Finished) for event in record.events) == 1
    assert isinstance(record.events[-1], Finished)


@given(COMPLETIONS)
def test_the_last_turn_s_answer_text_is_the_answer(texts: list[str]) -> None:
    record = play(new_rollout(Limits()), [list(text) for text in texts])
    last = record.rollout.num_turns
    told = "".join(e.text for e in record.events if isinstance(e, AnswerDelta) and e.turn == last)
    completed = [e for e in record.events if isinstance(e, AnswerCompleted)]
    if record.rollout.status is Status.COMPLETED:
        assert completed == [AnswerCompleted(last, told)]
        assert record.rollout.answer == told
    else:
        assert completed == []
        assert record.rollout.answer is None


class AnyOrder(RuleBasedStateMachine):
    """Legal and illegal inputs in any order, checked after each against what the rollout promises."""

    @initialize(limits=all_limits())
    def start(self, limits: Limits) -> None:
        self.rollout = new_rollout(limits)
        self.events: list[LoopEvent] = []
        self.num_ids = 0

    @property
    def action(self) -> object:
        return self.rollout.action

    def refuses(self, call: Callable[[], object]) -> None:
        before = (self.rollout.action, self.rollout.segments, self.rollout.num_sampled_tokens)
        with pytest.raises(IllegalInputError):
            call()
        assert (self.rollout.action, self.rollout.segments, self.rollout.num_sampled_tokens) == before

    @rule(text=model_texts(), num_ids=st.integers(0, 9))
    def text_comes(self, text: str, num_ids: int) -> None:
        if not isinstance(self.action, Generate):
            return self.refuses(lambda: self.rollout.receive_text(text, range(num_ids)))
        self.events += self.rollout.receive_text(text, range(num_ids))
        self.num_ids += num_ids
        return None

    @rule(reason=st.sampled_from(REASONS))
    def completion_ends(self, reason: FinishReason) -> None:
        if not isinstance(self.action, Generate):
            return self.refuses(lambda: self.rollout.end_completion(reason))
        self.events += self.rollout.end_completion(reason)
        return None

    @rule(found=passages())
    def passages_come(self, found: list[Passage]) -> None:
        if not isinstance(self.action, Search):
            return self.refuses(lambda: self.rollout.receive_passages(found))
        self.events += self.rollout.receive_passages(found)
        return None

    @rule(status=st.sampled_from([s for s in Status if s not in FROM_OUTSIDE]))
    def a_status_that_is_not_the_caller_s(self, status: Status) -> None:
        self.refuses(lambda: self.rollout.stop(status))

    @precondition(lambda self: self.rollout.num_turns > 1 or isinstance(self.action, Finish))
    @rule(status=st.sampled_from(FROM_OUTSIDE))
    def a_stop(self, status: Status) -> None:
        if isinstance(self.action, Finish):
            return self.refuses(lambda: self.rollout.stop(status))
        self.events += self.rollout.stop(status)
        return None

    @invariant()
    def each_id_belongs_to_one_segment(self) -> None:
        rollout = self.rollout
        assert sum(len(s.ids) for s in rollout.segments) == len(rollout.ids) == len(rollout.loss_mask)
        assert tuple(i for s in rollout.segments for i in s.ids) == rollout.ids
        assert sum(rollout.loss_mask) == sum(len(s.ids) for s in rollout.segments if s.kind == "completion")
        assert rollout.num_sampled_tokens == self.num_ids

    @invariant()
    def the_engine_is_asked_for_the_end_of_the_trajectory(self) -> None:
        if isinstance(action := self.rollout.action, Generate):
            limits = self.rollout.limits
            assert action.prompt_ids == self.rollout.ids[-limits.max_context_tokens :]
            assert 1 <= action.max_tokens <= limits.max_completion_tokens
            if limits.max_run_tokens is not None and self.num_ids < limits.max_run_tokens:
                assert action.max_tokens <= limits.max_run_tokens

    @invariant()
    def turns_and_searches_stay_within_their_limits(self) -> None:
        rollout, limits = self.rollout, self.rollout.limits
        assert rollout.num_turns <= limits.max_turns + 1
        assert rollout.num_searches <= (limits.max_turns if limits.max_searches is None else limits.max_searches)
        assert isinstance(rollout.action, Finish) == (rollout.status is not None)

    @invariant()
    def observations_are_short(self) -> None:
        put_in = [s for s in self.rollout.segments if s.kind in ("observation", "retry")]
        assert all(len(s.ids) <= self.rollout.limits.max_observation_tokens for s in put_in)

    @invariant()
    def finished_is_told_once_and_last(self) -> None:
        told = [i for i, event in enumerate(self.events) if isinstance(event, Finished)]
        assert told == ([len(self.events) - 1] if isinstance(self.action, Finish) else [])


TestAnyOrder = AnyOrder.TestCase


def test_a_rollout_is_not_moved_by_reading_it() -> None:
    rollout: Rollout = new_rollout()
    rollout.receive_text("<search> q </search>", (1,))
    read = [(rollout.action, rollout.ids, rollout.loss_mask, rollout.segments, rollout.status) for _ in range(2)]
    assert read[0] == read[1]
