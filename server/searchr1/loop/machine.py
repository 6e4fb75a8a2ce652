"""The reason-search loop as a pure state machine: no I/O, no clock, no tokenizer of its own.

Rules
-----
1. A rollout asks for one action at a time (``action``): ``Generate``, ``Search`` or ``Finish``. It accepts exactly what
   answers that action; anything else raises ``IllegalInputError``.
2. A turn is one completion and its observation. Turns 1 to ``max_turns`` may search. A rollout that is still open after
   them, or after its last allowed search, gets one more completion with search off and no text of ours before it.
3. A turn's text ends with its first stop, the closing tag of a search or an answer (``tags.py``). That text is
   tokenized alone; these ids, not the sampled ones, enter the context. A search puts an observation in, a turn without
   an action the retry text, each tokenized alone and cut to its first ``max_observation_tokens``, less a character that
   the cut leaves in half (``cut_ids``). No token is merged across two segments.
   Pass ``decode`` when training: the sampled ids are kept as sampled, because their logprobs hold for no other ids.
   Only tokens that reach past the cut are replaced, by what is before it, tokenized alone.
4. The engine gets the last ``max_context_tokens`` ids of prompt + segments.
5. Only text that the policy generated moves the state. Passages are data: nothing in them is scanned.
   ``QuerySettled`` moves nothing either: it says early which query a turn is likely to ask for.
6. An answer ends the rollout as ``completed``; the last turn without one as ``exhausted``, and so any turn without an
   action where the profile has no retry text; a spent token budget as ``truncated``. ``stop`` ends it from outside.
   ``Finished`` is always the last event.

Transitions
-----------
Inputs: ``text`` is ``receive_text``, ``end`` is ``end_completion``, ``passages`` is ``receive_passages``. What the
table does not have is illegal: it raises, and changes nothing. Search is ``on`` in turns up to ``max_turns`` while
fewer than ``max_searches`` searches were made, else ``off``; a turn without an action counts as ``off`` as well where
the profile has no retry text. The budget is ``spent`` once ``max_run_tokens`` were sampled.

| action | input | condition | next action | events | segments added |
|---|---|---|---|---|---|
| Generate | text | always | Generate | deltas, QuerySettled | |
| Generate | end | answer | Finish completed | AnswerCompleted, Finished | completion |
| Generate | end | search, on | Search | SearchRequested | completion |
| Generate | end | search, on, spent | Finish truncated | Finished | completion |
| Generate | end | search, off | Finish exhausted | ActionInvalid, Finished | completion |
| Generate | end | search, off, spent at the length limit | Finish truncated | ActionInvalid, Finished | completion |
| Generate | end | no action, on | Generate | ActionInvalid | completion, retry |
| Generate | end | no action, on, spent | Finish truncated | ActionInvalid, Finished | completion, retry |
| Generate | end | no action, off | Finish exhausted | ActionInvalid, Finished | completion |
| Generate | end | no action, off, spent at the length limit | Finish truncated | ActionInvalid, Finished | completion |
| Generate | stop | text or ids came | Finish from outside | Finished | completion |
| Generate | stop | nothing came | Finish from outside | Finished | |
| Search | passages | always | Generate | | observation |
| Search | stop | always | Finish from outside | Finished | |

Deltas that were held back come before the events of ``end``; half a tag at the length limit is not shown. "From
outside" is ``cancelled``, ``deadline`` or ``failed``.

How the same text was cut into pieces changes neither segments nor events, but for where deltas are split.
Reference: ``search_r1/llm_agent/generation.py``, ``run_llm_loop`` (PeterGriffinJin/Search-R1).
"""

from array import array
from collections.abc import Sequence
from itertools import chain

from searchr1.errors import IllegalInputError
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import Piece, TagScanner
from searchr1.loop.types import (
    UNFINISHED,
    Action,
    ActionInvalid,
    AnswerCompleted,
    AnswerDelta,
    Decode,
    Encode,
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
    Segment,
    SegmentKind,
    Status,
    ThinkDelta,
    TokenIds,
    VisibleEvent,
)

_FROM_OUTSIDE = (Status.CANCELLED, Status.DEADLINE, Status.FAILED)
_MAX_HALF_BYTES = 3
"""Of a character in UTF-8, whose fourth byte is its last."""


class Rollout:
    """One question on its way to a terminal status.

    Args:
        prompt: the text that ``prompt_ids`` stand for.
        prompt_ids: the tokenized prompt, chat template included.
        encode: text to ids, without special tokens.
        limits: bounds on turns, searches and tokens.
        profile: the tags and texts that this family of checkpoints expects.
        decode: ids to text; given when training, where sampled ids are kept (rule 3).
        spell: ids to text, by which a cut keeps whole characters, and for whoever drives the rollout and must know
            which text some sampled ids stand for; by default ``decode``. Without either, a cut looks at no character.
    """

    def __init__(
        self,
        *,
        prompt: str,
        prompt_ids: Sequence[int],
        encode: Encode,
        limits: Limits | None = None,
        profile: Profile = SEARCH_R1,
        decode: Decode | None = None,
        spell: Decode | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.profile = profile
        self.spell = spell or decode
        self.answer: str | None = None
        self.num_turns = 0
        self.num_searches = 0
        self.num_invalid = 0
        self._encode, self._decode = encode, decode
        self._segments = [Segment("prompt", 0, prompt, tuple(prompt_ids), sampled=False)]
        self._scanner = TagScanner(profile.tags)
        self._sampled_ids, self._logprobs = array("q"), array("d")
        self._num_sampled = 0
        self._streamed_answer = ""
        self._action: Action = self._next_turn()

    @property
    def action(self) -> Action:
        """The next action that the caller must carry out."""
        return self._action

    @property
    def status(self) -> Status | None:
        """The terminal status; None while the rollout is open."""
        return self._action.status if isinstance(self._action, Finish) else None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The trajectory: the prompt first, then completions, observations and retry texts in order."""
        return tuple(self._segments)

    @property
    def ids(self) -> TokenIds:
        """All token ids, prompt included, uncut."""
        if len(self._segments) == 1:  # The prompt alone is most of what a run of one turn holds: no copy of it.
            return self._segments[0].ids
        return tuple(chain.from_iterable(segment.ids for segment in self._segments))

    @property
    def loss_mask(self) -> tuple[bool, ...]:
        """One flag per id of ``ids``: true where the policy sampled the token."""
        return tuple(segment.sampled for segment in self._segments for _ in segment.ids)

    @property
    def num_sampled_tokens(self) -> int:
        """Number of tokens that the engine generated so far, in all turns, those cut off included."""
        return self._num_sampled

    def count_tokens(self, text: str) -> int:
        """Return the number of tokens of ``text``, tokenized alone."""
        return len(self._encode(text))

    @property
    def completion_settled(self) -> bool:
        """True when the current turn's text is complete, so that more of it would be dropped."""
        return self._scanner.settled

    def receive_text(
        self, text: str, ids: Sequence[int] = (), logprobs: Sequence[float] | None = None
    ) -> list[LoopEvent]:
        """Take a piece of the completion, with the ids that the engine sampled for it, and their logprobs if known."""
        turn = self._expect_generate().turn
        self._sampled_ids.extend(ids)
        self._logprobs.extend(logprobs or ())
        self._num_sampled += len(ids)
        was_settled = self._scanner.query is not None
        events: list[LoopEvent] = [*self._visible(turn, self._scanner.feed(text))]
        query = self._scanner.query
        if query is not None and not was_settled and not self._search_is_off(turn):
            events.append(QuerySettled(turn, query))
        return events

    def end_completion(self, reason: FinishReason) -> list[VisibleEvent]:
        """End the completion: record it, take its action and move on."""
        asked = self._expect_generate()
        events = [] if self._scanner.settled else self._visible(asked.turn, self._scanner.close(cut=reason == "length"))
        text = self._scanner.text
        self._append_completion(asked.turn, text)
        kind, content = self.profile.action(text)
        if kind == "answer":
            return events + self._take_answer(asked.turn, content)
        if kind == "search" and not self._search_is_off(asked.turn):
            return events + self._take_search(asked.turn, content)
        return events + self._take_invalid(asked.turn, wanted_search=kind == "search", reason=reason)

    def receive_passages(self, passages: Sequence[Passage]) -> list[VisibleEvent]:
        """Put a search's passages into the context. A search that failed puts in none."""
        if not isinstance(self._action, Search):
            raise IllegalInputError(f"passages came while the rollout waits for {_name(self._action)}")
        self._append("observation", self._action.turn, self.profile.observation(passages))
        return self._advance()

    def stop(self, status: Status) -> list[VisibleEvent]:
        """End an open rollout from outside: cancelled, past its deadline, or failed. Text in flight is recorded."""
        if status not in _FROM_OUTSIDE:
            raise IllegalInputError(f"only the rollout itself can end as {status}")
        if self.status is not None:
            raise IllegalInputError(f"the rollout has already finished as {self.status}")
        if isinstance(self._action, Generate) and (self._scanner.text or self._sampled_ids):
            self._append_completion(self._action.turn, self._scanner.text)
        return self._finish(status)

    def _take_answer(self, turn: int, answer: str) -> list[VisibleEvent]:
        self.answer = answer
        events: list[VisibleEvent] = []
        if answer and not self._streamed_answer:
            events.append(AnswerDelta(turn, answer))
        return [*events, AnswerCompleted(turn, answer), *self._finish(Status.COMPLETED)]

    def _take_search(self, turn: int, query: str) -> list[VisibleEvent]:
        if self._tokens_left() == 0:  # No completion is left to read the passages.
            return self._finish(Status.TRUNCATED)
        self.num_searches += 1
        self._action = Search(turn, query)
        return [SearchRequested(turn, query)]

    def _take_invalid(self, turn: int, *, wanted_search: bool, reason: FinishReason) -> list[VisibleEvent]:
        self.num_invalid += 1
        events: list[VisibleEvent] = [ActionInvalid(turn, "search_off" if wanted_search else "no_action")]
        retry = None if self._search_is_off(turn) else self.profile.retry
        if retry is None:
            cut_short = reason == "length" and self._tokens_left() == 0
            return events + self._finish(Status.TRUNCATED if cut_short else Status.EXHAUSTED)
        self._append("retry", turn, retry)
        return events + self._advance()

    def _advance(self) -> list[VisibleEvent]:
        if self._tokens_left() == 0:
            return self._finish(Status.TRUNCATED)
        self._action = self._next_turn()
        return []

    def _next_turn(self) -> Generate:
        self.num_turns += 1
        self._scanner = TagScanner(self.profile.tags)
        self._sampled_ids, self._logprobs = array("q"), array("d")
        self._streamed_answer = ""
        max_tokens = self.limits.max_completion_tokens
        if (left := self._tokens_left()) is not None:
            max_tokens = min(max_tokens, left)
        return Generate(self.num_turns, self._context(), max_tokens, self.profile.tags.stops)

    def _finish(self, status: Status) -> list[VisibleEvent]:
        self._action = Finish(status)
        return [Finished(self.num_turns, status)]

    def _search_is_off(self, turn: int) -> bool:
        max_searches = self.limits.max_searches
        return turn > self.limits.max_turns or (max_searches is not None and self.num_searches >= max_searches)

    def _tokens_left(self) -> int | None:
        budget = self.limits.max_run_tokens
        return None if budget is None else max(0, budget - self._num_sampled)

    def _context(self) -> TokenIds:
        return self.ids[-self.limits.max_context_tokens :]

    def _append(self, kind: SegmentKind, turn: int, text: str) -> None:
        ids = cut_ids(self._encode(text), self.limits.max_observation_tokens, self.spell)
        self._segments.append(Segment(kind, turn, text, ids, sampled=False))

    def _append_completion(self, turn: int, text: str) -> None:
        sampled_ids = tuple(self._sampled_ids)
        logprobs = tuple(self._logprobs) if self._logprobs and len(self._logprobs) == len(sampled_ids) else None
        standing, rest = self._standing(sampled_ids, text)
        ids = (*sampled_ids[:standing], *self._encode(rest)) if rest else sampled_ids[:standing]
        self._segments.append(Segment("completion", turn, text, ids, True, sampled_ids, logprobs, standing))

    def _standing(self, sampled_ids: TokenIds, text: str) -> tuple[int, str]:
        """Return how many sampled ids are kept, and the rest of ``text``, which they do not spell."""
        if self._decode is None:
            return 0, text
        count = len(sampled_ids)
        while not text.startswith(spelled := self._decode(sampled_ids[:count])):
            count -= 1
        while count and self._decode(sampled_ids[: count - 1]) == spelled:
            count -= 1  # An end-of-text token spells nothing and has never been in a context.
        return count, text[len(spelled) :]

    def _visible(self, turn: int, pieces: list[Piece]) -> list[VisibleEvent]:
        events: list[VisibleEvent] = []
        for piece in pieces:
            if piece.kind == "answer":
                self._streamed_answer += piece.text
                events.append(AnswerDelta(turn, piece.text))
            else:
                events.append(ThinkDelta(turn, piece.text))
        return events

    def _expect_generate(self) -> Generate:
        if not isinstance(self._action, Generate):
            raise IllegalInputError(f"a completion came while the rollout waits for {_name(self._action)}")
        return self._action


def cut_ids(ids: Sequence[int], most: int, spell: Decode | None) -> TokenIds:
    """Return the first ``most`` ids of a text that is put in, less those at the end that spell half a character.

    What is put in ends the next prompt. vLLM's detokenizer takes a prompt that ends inside a character for unfinished
    text, and begins the completion's text with all of it: the ``<search> query </search>`` of the prompt's own
    instructions would be the model's action.
    """
    kept = tuple(ids[:most])
    if spell is None or not spell(kept[-1:]).endswith(UNFINISHED):  # Most texts: to spell one id is cheap.
        return kept
    dropped = 0
    while dropped < len(kept):
        # An id spells a byte at least, so three finish a character. More are replacement characters of the text's own.
        for count in range(len(kept) - dropped, max(len(kept) - dropped - _MAX_HALF_BYTES - 1, 0), -1):
            if not spell(kept[:count]).endswith(UNFINISHED):
                return kept[:count]
        dropped = 2 * dropped or _MAX_HALF_BYTES + 1
    return ()


def _name(action: Action) -> str:
    """Name the action's kind alone: its ids would fill pages."""
    return type(action).__name__
