"""Tags in text: which ones a family of checkpoints writes, and how a turn is read by them, whole and as it streams.

Rules
-----
* A turn's text ends just after its first stop: the closing tag of a search or of an answer. What follows is not part
  of it.
* Tags are matched as text, never as tokens, and only exactly: other cases and spacings are ordinary text.
* Once the opening search tag was a turn's first action tag, the query is settled where the closing tag first stands
  after it, its last character still missing: it is the action's content if that character follows. ``</searching``
  may follow instead, or nothing more.
* Text inside an answer that is streamed leaves as answer text, text inside a search is held back, everything else is
  reasoning. Other tags are dropped from it, and so is white space at its edges.

A profile (``profiles/base.py``) owns its tags and says which action a turn's text holds.
"""

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from searchr1.loop.types import ActionKind

Mode = Literal["think", "search", "answer"]


class Pair(NamedTuple):
    """An opening tag and its closing one."""

    open: str
    close: str

    @classmethod
    def named(cls, name: str) -> "Pair":
        """Return ``<name>`` and ``</name>``."""
        return cls(f"<{name}>", f"</{name}>")


@dataclass(frozen=True)
class Tags:
    """The tags that one family of checkpoints writes and reads.

    Every tag starts with ``<``, holds no other one, and is no beginning of another tag: so a tag that may still come
    is known by its last ``<``.
    """

    search: Pair
    observation: Pair
    """Around what a search found; written by the loop, never by the policy."""
    think: Pair | None = None
    answer: Pair | None = None
    """None where the end of a completion without a search is the answer."""
    streams_answer: bool = True
    """True if all text inside ``answer`` is the answer. If not, it shows as reasoning, and the answer comes whole."""
    hidden: tuple[str, ...] = ()
    """Further tags that are dropped from the reasoning that users see."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for tags that can't be told apart while text streams."""
        for tag in self.all:
            if not tag.startswith("<") or "<" in tag[1:] or not tag.strip("<>/|"):
                raise ValueError(f"a tag is '<', a name and an end, with no other '<' in it: {tag!r}")
            if any(other != tag and other.startswith(tag) for other in self.all):
                raise ValueError(f"the tag {tag!r} is the beginning of another one")

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Every tag once, opening and closing ones."""
        pairs = (self.think, self.search, self.observation, self.answer)
        return tuple(dict.fromkeys((*(tag for pair in pairs if pair is not None for tag in pair), *self.hidden)))

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """The stop strings of a completion: the tags that end a turn's text."""
        return (self.search.close,) if self.answer is None else (self.search.close, self.answer.close)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names inside the tags, such as ``search``: text in brackets that starts so could pass for a tag."""
        return frozenset(tag.strip("<>/|") for tag in self.all)

    @cached_property
    def _action(self) -> re.Pattern[str]:
        pairs = (self.search,) if self.answer is None else (self.search, self.answer)
        return re.compile("|".join(f"{re.escape(p.open)}(.*?){re.escape(p.close)}" for p in pairs), re.DOTALL)

    def first_action(self, text: str) -> tuple[ActionKind, str]:
        """Return the first search or answer whose tags are both in ``text``, and its stripped content.

        The content is empty for ``invalid``: there is none.

        >>> Tags(search=Pair.named("find"), observation=Pair.named("found")).first_action("<find> q </find>")
        ('search', 'q')
        """
        match = self._action.search(text)
        if match is None:
            return "invalid", ""
        return ("search" if match[0].startswith(self.search.open) else "answer"), match[match.lastindex or 1].strip()


@dataclass(frozen=True, slots=True)
class Piece:
    """Visible text of one kind."""

    kind: Literal["think", "answer"]
    text: str


class _Awaited(NamedTuple):
    """The tags that count while text of one mode comes."""

    tags: tuple[str, ...]
    pattern: re.Pattern[str]
    longest: int
    """Characters of the longest tag."""


@dataclass(frozen=True, slots=True)
class _Grammar:
    """The parts of some tags that a scanner looks for, made once for each set of tags."""

    stops: tuple[str, ...]
    openings: dict[str, Mode]
    settling: str
    """The closing search tag without its last character."""
    awaited: dict[Mode, _Awaited]


@lru_cache(maxsize=64)
def _grammar(tags: Tags) -> _Grammar:
    openings: dict[str, Mode] = {tags.search.open: "search"}
    dropped = (*(tags.think or ()), *tags.hidden)
    if tags.answer is not None and tags.streams_answer:
        openings[tags.answer.open] = "answer"
    elif tags.answer is not None:
        dropped += (tags.answer.open,)
    of_mode: dict[Mode, tuple[str, ...]] = {
        "think": (*dropped, *openings, *tags.stops),
        "search": tags.stops,
        "answer": tags.stops,
    }
    awaited = {
        mode: _Awaited(found, re.compile("|".join(map(re.escape, found))), max(map(len, found)))
        for mode, found in of_mode.items()
    }
    return _Grammar(tags.stops, openings, tags.search.close[:-1], awaited)


class TagScanner:
    """A reader of one turn's text as it streams. ``settled`` once the text that follows can't matter any more.

    ``query`` is the settled query, stripped; None before it is settled, and in a turn whose first action is no search.
    """

    def __init__(self, tags: Tags) -> None:
        self._grammar = _grammar(tags)
        self._mode: Mode = "think"
        self._awaited = self._grammar.awaited[self._mode]
        self._pending = ""
        self._kept = ""
        self._edge = _Edge()
        self._query_start = 0
        self.query: str | None = None
        self.settled = False

    @property
    def text(self) -> str:
        """The turn's text so far, up to and with its first stop."""
        return self._kept + self._pending

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what became visible by it. Text after the turn's end is dropped."""
        if self.settled:
            return []
        self._pending += text
        pieces: list[Piece] = []
        while not self.settled and (match := self._awaited.pattern.search(self._pending)):
            self._settle_query(match.end())
            self._show(self._pending[: match.start()], pieces)
            self._kept += match[0]
            self._pending = self._pending[match.end() :]
            self._enter(match[0])
        if self.settled:
            self._pending = ""
            return pieces
        self._settle_query(len(self._pending))
        safe = len(self._pending) - _partial_tag_length(self._pending, self._awaited)
        self._show(self._pending[:safe], pieces)
        self._pending = self._pending[safe:]
        return pieces

    def close(self, *, cut: bool = False) -> list[Piece]:
        """End a text without a stop: release what was held back as a possible tag.

        In a text that was ``cut`` at its token limit it stays hidden, as half a tag.
        """
        pieces: list[Piece] = []
        if cut:
            self._kept += self._pending
        else:
            self._show(self._pending, pieces)
        self._pending = ""
        self.settled = True
        return pieces

    def _enter(self, tag: str) -> None:
        if tag in self._grammar.stops:
            self.settled = True
        elif tag in self._grammar.openings:
            self._mode = self._grammar.openings[tag]
            self._awaited = self._grammar.awaited[self._mode]
            self._edge = _Edge()
            self._query_start = len(self._kept)

    def _settle_query(self, end: int) -> None:
        """Look for the query's end in the pending text before ``end``. What was kept can't hold a part of it."""
        if self._mode != "search" or self.query is not None:
            return
        cut = self._pending.find(self._grammar.settling, 0, end)
        if cut >= 0:
            self.query = (self._kept[self._query_start :] + self._pending[:cut]).strip()

    def _show(self, text: str, pieces: list[Piece]) -> None:
        if not text:
            return
        self._kept += text
        if self._mode == "search":
            return
        visible = self._edge.feed(text)
        if visible:
            pieces.append(Piece(self._mode, visible))


class _Edge:
    """A filter that strips the white space at both ends of a text that arrives in pieces."""

    def __init__(self) -> None:
        self._started = False
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        if not self._started:
            text = text.lstrip()
        body = text.rstrip()
        self._held = text[len(body) :]
        self._started = self._started or bool(body)
        return body


def _partial_tag_length(text: str, awaited: _Awaited) -> int:
    """Return the length of the longest end of ``text`` that a tag could go on from."""
    start = text.rfind("<", max(0, len(text) - awaited.longest + 1))
    if start < 0:
        return 0
    tail = text[start:]
    return len(tail) if any(tag.startswith(tail) for tag in awaited.tags) else 0
