"""Finding actions in text: whole, as training did, and incrementally, so that events can leave while text streams in.

Rules
-----
* A turn's text ends just after its first ``</search>`` or ``</answer>``; what follows is not part of it.
* The action is the first match of ``<(search|answer)>(.*?)</\\1>`` in that text, its content stripped
  (reference: ``search_r1/llm_agent/generation.py``, ``postprocess_predictions``).
* Tags are matched as text, never as tokens, and only exactly: other cases and spacings are ordinary text.
* Once ``<search>`` was a turn's first action tag, the query is settled where ``</search`` first stands after it: it is
  the action's content if ``>`` follows. ``</searching`` may follow instead, or nothing more.
* Text inside ``<answer>`` streams as answer text, text inside ``<search>`` is held back, everything else is reasoning.
  ``<think>`` and ``</think>`` are dropped from it, and so is white space at its edges.
"""

import re
from dataclasses import dataclass
from typing import Literal

from searchr1.loop.types import ActionKind

Mode = Literal["think", "search", "answer"]

STOP_STRINGS = ("</search>", "</answer>")

_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
_OPENING: dict[str, Mode] = {"<search>": "search", "<answer>": "answer"}
_CLOSING_QUERY = "</search"
_DROPPED = ("<think>", "</think>")
_TAGS_OF_MODE: dict[Mode, tuple[str, ...]] = {
    "think": (*_DROPPED, *_OPENING, *STOP_STRINGS),
    "search": STOP_STRINGS,
    "answer": STOP_STRINGS,
}
_PATTERN_OF_MODE = {mode: re.compile("|".join(map(re.escape, tags))) for mode, tags in _TAGS_OF_MODE.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """Visible text of one kind."""

    kind: Literal["think", "answer"]
    text: str


def parse_action(text: str) -> tuple[ActionKind, str]:
    """Return a turn's action and its stripped content; content is empty for ``invalid``.

    >>> parse_action("<think> a </think> <search> q </search>")
    ('search', 'q')
    """
    match = _ACTION.search(text)
    if match is None:
        return "invalid", ""
    return ("search" if match[1] == "search" else "answer"), match[2].strip()


class TagScanner:
    """Scans one turn's text as it streams. ``settled`` once the text that follows can't matter any more.

    ``query`` is the settled query, stripped; None before it is settled, and in a turn whose first action is no search.
    """

    def __init__(self) -> None:
        self._mode: Mode = "think"
        self._pending = ""
        self._kept: list[str] = []
        self._edge = _Edge()
        self._num_before_query = 0
        self.query: str | None = None
        self.settled = False

    @property
    def text(self) -> str:
        """The turn's text so far, up to and with its first closing action tag."""
        return "".join(self._kept) + self._pending

    def feed(self, text: str) -> list[Piece]:
        """Take more text; return what became visible by it. Text after the turn's end is dropped."""
        if self.settled:
            return []
        self._pending += text
        pieces: list[Piece] = []
        while not self.settled and (match := _PATTERN_OF_MODE[self._mode].search(self._pending)):
            self._settle_query(match.end())
            self._show(self._pending[: match.start()], pieces)
            self._kept.append(match[0])
            self._pending = self._pending[match.end() :]
            self._enter(match[0])
        if self.settled:
            self._pending = ""
            return pieces
        self._settle_query(len(self._pending))
        safe = len(self._pending) - _partial_tag_length(self._pending, _TAGS_OF_MODE[self._mode])
        self._show(self._pending[:safe], pieces)
        self._pending = self._pending[safe:]
        return pieces

    def close(self) -> list[Piece]:
        """The text has ended without a closing tag: release what was held back as a possible tag."""
        pieces: list[Piece] = []
        self._show(self._pending, pieces)
        self._pending = ""
        self.settled = True
        return pieces

    def _enter(self, tag: str) -> None:
        if tag in STOP_STRINGS:
            self.settled = True
        elif tag in _OPENING:
            self._mode = _OPENING[tag]
            self._edge = _Edge()
            self._num_before_query = len(self._kept)

    def _settle_query(self, end: int) -> None:
        """Look for the query's end in the pending text before ``end``. What was kept can't hold a part of it."""
        if self._mode != "search" or self.query is not None:
            return
        cut = self._pending.find(_CLOSING_QUERY, 0, end)
        if cut >= 0:
            self.query = ("".join(self._kept[self._num_before_query :]) + self._pending[:cut]).strip()

    def _show(self, text: str, pieces: list[Piece]) -> None:
        if not text:
            return
        self._kept.append(text)
        if self._mode == "search":
            return
        visible = self._edge.feed(text)
        if visible:
            pieces.append(Piece(self._mode, visible))


class _Edge:
    """Strips the white space at both ends of a text that arrives in pieces."""

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


def _partial_tag_length(text: str, tags: tuple[str, ...]) -> int:
    """Length of the longest end of ``text`` that a tag could go on from."""
    start = text.rfind("<", max(0, len(text) - max(map(len, tags)) + 1))
    if start < 0:
        return 0
    tail = text[start:]
    return len(tail) if any(tag.startswith(tail) for tag in tags) else 0
