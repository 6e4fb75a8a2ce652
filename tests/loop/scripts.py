"""Texts that models could write, ways to cut them into pieces, and a way to run a rollout on them."""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st

from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import Tags
from searchr1.loop.types import (
    Action,
    AnswerDelta,
    Finish,
    Generate,
    Limits,
    LoopEvent,
    Passage,
    ThinkDelta,
)

PROMPT_IDS = (7, 8, 9)

_FRAGMENTS = (
    *("<", ">", "</", "<s", "</se", "</search", "<ans", "</answer", "search>", "answer>", "<SEARCH>", "< search>"),
    *(
        "<|",
        "<|end_search_",
        "|>",
        "\\boxed{",
        "{",
        "}",
        "\\boxed{a {b}}",
        "<result",
        "<information>",
        "</information>",
    ),
    *(
        " ",
        "\n",
        "\n\n",
        "\t",
        "\u00a0",
        "\u2028",
        "\x00",
        "\x1f",
        "?",
        ".",
        "Mali",
        "is it",
        "é",
        "日本",
        "🏝",
        "e\u0301",
    ),
)


def model_texts(tags: Tags = SEARCH_R1.tags) -> st.SearchStrategy[str]:
    """Completions: tags whole, torn, nested and misplaced, between any other text."""
    piece = st.sampled_from((*tags.all, *_FRAGMENTS)) | st.text(max_size=4)
    tags_and_words = st.lists(st.sampled_from((*tags.all, " ", "a", "\\boxed{b}")), max_size=9)
    return st.lists(piece, max_size=14).map("".join) | tags_and_words.map("".join) | st.sampled_from(_well_formed(tags))


def _well_formed(tags: Tags) -> tuple[str, ...]:
    thought = f"{tags.think.open} a {tags.think.close}\n" if tags.think else "a\n"
    opening, closing = tags.answer or ("", "")
    search = f"{tags.search.open} Mali {tags.search.close}"
    return (
        thought + search,
        f"{thought.strip()}{opening} Bamako {closing}",
        f"{thought}{opening} It is \\boxed{{Bamako}}. {closing}",
        "".join(tags.search),
        f"{opening}{closing}",
    )


def passages(tags: Tags = SEARCH_R1.tags) -> st.SearchStrategy[list[Passage]]:
    """Search results whose text tries everything that a completion could hold."""
    passage = st.builds(Passage, id=st.just("p"), title=model_texts(tags), text=model_texts(tags))
    return st.lists(passage, max_size=3)


def all_limits() -> st.SearchStrategy[Limits]:
    """Small bounds, so that all of them are met."""
    return st.builds(
        Limits,
        max_turns=st.integers(0, 4),
        max_searches=st.none() | st.integers(0, 4),
        max_completion_tokens=st.integers(1, 40),
        max_observation_tokens=st.integers(0, 40),
        max_context_tokens=st.integers(1, 80),
        max_run_tokens=st.none() | st.integers(1, 80),
    )


def chunkings(text: str) -> st.SearchStrategy[list[str]]:
    """``text`` in pieces, empty ones among them."""
    return st.lists(st.integers(0, len(text)), max_size=len(text) + 2).map(
        lambda cuts: [text[a:b] for a, b in pairwise([0, *sorted(cuts), len(text)])]
    )


def encode(text: str) -> list[int]:
    """A tokenizer that fuses ``>`` with the newlines after it, so that joined segments differ from separate ones."""
    return [zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in re.findall(r">\n*|\s?\w+|[\s\S]", text)]


def new_rollout(limits: Limits | None = None, profile: Profile = SEARCH_R1) -> Rollout:
    return Rollout(prompt="the prompt", prompt_ids=PROMPT_IDS, encode=encode, limits=limits, profile=profile)


@dataclass(frozen=True, slots=True)
class Record:
    """The actions and events of a rollout."""

    rollout: Rollout
    actions: tuple[Action, ...]
    events: tuple[LoopEvent, ...]

    @property
    def requests(self) -> list[object]:
        """The actions without the ids of what came before them."""
        return [(a.turn, a.max_tokens, a.stop) if isinstance(a, Generate) else a for a in self.actions]


def play(rollout: Rollout, completions: Iterable[Sequence[str]], results: Iterable[Sequence[Passage]] = ()) -> Record:
    """Run ``rollout`` on ``completions``, each a sequence of pieces, until it finishes or they end.

    A piece brings one sampled id per character. Searches past the end of ``results`` find nothing.
    """
    left, found = iter(completions), iter(results)
    actions: list[Action] = []
    events: list[LoopEvent] = []
    while True:
        actions.append(action := rollout.action)
        if isinstance(action, Finish):
            break
        if not isinstance(action, Generate):
            events += rollout.receive_passages(next(found, ()))
            continue
        if (pieces := next(left, None)) is None:
            break
        for piece in pieces:
            events += rollout.receive_text(piece, [ord(c) for c in piece])
        events += rollout.end_completion("stop")
    return Record(rollout, tuple(actions), tuple(events))


def joined(events: Iterable[LoopEvent]) -> list[LoopEvent]:
    """The events with adjacent deltas of one kind and turn made one."""
    merged: list[LoopEvent] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, ThinkDelta) and isinstance(last, ThinkDelta) and event.turn == last.turn:
            merged[-1] = ThinkDelta(event.turn, last.text + event.text)
        elif isinstance(event, AnswerDelta) and isinstance(last, AnswerDelta) and event.turn == last.turn:
            merged[-1] = AnswerDelta(event.turn, last.text + event.text)
        else:
            merged.append(event)
    return merged
