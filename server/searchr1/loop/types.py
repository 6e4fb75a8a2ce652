"""The loop's vocabulary: plain frozen values, standard library only, shared by every layer above it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

TokenIds = tuple[int, ...]
Encode = Callable[[str], list[int]]
"""Text to token ids, no special tokens added: ``tokenizer.encode(text, add_special_tokens=False)``."""

Decode = Callable[[TokenIds], str]
"""Token ids to text, special tokens left out."""

UNFINISHED: Final = "\ufffd"
"""What the text of ids that end inside a character ends with."""

AddBos = Literal["auto", "always", "never"]
"""Whether a prompt begins with ``<bos>`` where the chat template does not write one. ``auto`` is what the tokenizer
says where there is no chat template, by its ``add_bos_token`` or its post-processor, and else no."""

FinishReason = Literal["stop", "length", "abort"]
"""The reason why a completion ended: a stop string or EOS, the token limit, or the caller."""

ActionKind = Literal["search", "answer", "invalid"]
SegmentKind = Literal["prompt", "completion", "observation", "retry"]


class Status(StrEnum):
    """The way in which a rollout ended."""

    COMPLETED = "completed"
    EXHAUSTED = "exhausted"
    """There was no answer within its turns."""
    TRUNCATED = "truncated"
    """Its token budget ran out first."""
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved passage. ``title`` is the first line of the upstream ``contents``, quotes and all."""

    id: str
    title: str
    text: str
    url: str | None = None
    score: float | None = None

    @classmethod
    def from_contents(
        cls, contents: str, *, id: str = "", url: str | None = None, score: float | None = None
    ) -> "Passage":
        """Split upstream's ``contents`` at its first newline into title and text."""
        title, _, text = contents.partition("\n")
        return cls(id=id, title=title, text=text, url=url, score=score)

    @property
    def contents(self) -> str:
        """The upstream form: the title line, then the text."""
        return f"{self.title}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one rollout, all counts of turns, searches or tokens. The defaults are the trained ones."""

    max_turns: int = 4
    """Turns with search on; an open rollout gets one more completion after them, with search off."""
    max_searches: int | None = None
    """Searches in all; None means one per turn."""
    max_completion_tokens: int = 500
    """Sampled tokens of one turn."""
    max_observation_tokens: int = 500
    """Longer observations keep their first tokens, as far as those end with a whole character."""
    max_context_tokens: int = 4096
    """Tokens sent to the engine; a longer input is cut on the left."""
    max_trajectory_tokens: int = 4096
    """Tokens after the prompt that count for the reward and the loss; the rest is cut on the right."""
    max_run_tokens: int | None = None
    """Sampled tokens over all turns; past it the rollout ends as ``truncated``."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a bound that no rollout can keep."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


_LEAST = {
    "max_turns": 0,
    "max_searches": 0,
    "max_completion_tokens": 1,
    "max_observation_tokens": 0,
    "max_context_tokens": 1,
    "max_trajectory_tokens": 1,
    "max_run_tokens": 1,
}


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that was tokenized alone. The list of them is the trajectory."""

    kind: SegmentKind
    turn: int
    """Zero for the prompt, else the turn that produced it, from 1."""
    text: str
    ids: TokenIds
    sampled: bool
    """True when the policy generated it: the loss mask of each of its tokens."""
    sampled_ids: TokenIds = ()
    """The ids that the engine sampled, before the cut and the re-tokenization; empty for text that was put in."""
    logprobs: tuple[float, ...] | None = None
    """The engine's logprobs, one for each of ``sampled_ids``, where it gave them."""
    num_verbatim: int = 0
    """Number of ``ids``, from the first, that are ``sampled_ids`` unchanged, so that ``logprobs`` are theirs."""


@dataclass(frozen=True, slots=True)
class Generate:
    """A request for one completion."""

    turn: int
    prompt_ids: TokenIds
    max_tokens: int
    stop: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """A request for the passages of one query. An empty query is still a search."""

    turn: int
    query: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The end: nothing more is to be done."""

    status: Status


Action = Generate | Search | Finish


@dataclass(frozen=True, slots=True)
class ThinkDelta:
    """Reasoning text, tags removed, as it streams."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """Answer text as it streams. Void if the turn does not end in ``AnswerCompleted``."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class SearchRequested:
    """The turn's action is a search."""

    turn: int
    query: str


@dataclass(frozen=True, slots=True)
class QuerySettled:
    """A hint, at most once a turn and only with search on: the closing search tag has come, but for its last character.

    A turn that ends in ``Search`` mostly asks for this query, but nothing is sure before: ``</searching`` is no tag,
    and a budget may end the text. So it may start a search early, and nothing else.
    """

    turn: int
    query: str


@dataclass(frozen=True, slots=True)
class AnswerCompleted:
    """The turn's action is an answer: the final one."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ActionInvalid:
    """The turn held no action that can be taken."""

    turn: int
    reason: Literal["no_action", "search_off"]
    """The turn held neither a search nor an answer, or a search where only an answer was left to give."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every rollout."""

    turn: int
    status: Status


VisibleEvent = ThinkDelta | AnswerDelta | SearchRequested | AnswerCompleted | ActionInvalid | Finished
"""An event that whoever watches a run is told."""
LoopEvent = VisibleEvent | QuerySettled
