"""The report of a client's runs, printed to the test as a JSON list. Runs in any environment."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Shown:
    """All that a client gave its user."""

    text: str = ""
    text_deltas: int = 0
    """Number of pieces that the text came in; 0 where the client does not stream."""
    reasoning: str = ""
    reasoning_deltas: int = 0
    searches: list[str] = field(default_factory=list)
    """Queries, where the client tells them apart from reasoning."""
    citations: list[dict[str, str]] = field(default_factory=list)
    """``title`` and ``url`` of what the answer cites."""
    sources: list[dict[str, str]] = field(default_factory=list)
    """``title`` and ``url`` of all that searches found; the title is "" where only the URL is told."""
    usage: dict[str, int | None] = field(default_factory=dict)
    """``input``, ``output``, ``reasoning`` and ``searches``; None for what the client drops."""
    error: dict[str, Any] | None = None
    """``kind`` (the exception's class), ``status`` (None in mid-stream) and ``message``."""

    def add_text(self, delta: str | None) -> None:
        """One delta of the answer."""
        if delta:
            self.text += delta
            self.text_deltas += 1

    def add_reasoning(self, delta: str | None) -> None:
        """One delta of the reasoning."""
        if delta:
            self.reasoning += delta
            self.reasoning_deltas += 1


@dataclass(frozen=True)
class Job:
    """The test's wish: a mode, the server's ``/v1``, the model's name there and the question."""

    mode: str
    url: str
    model: str
    question: str


def leave() -> None:
    """Say that the stream was left, and stay, so that it is not the end of this process that closes the connection."""
    sys.stdout.write("left\n")
    sys.stdout.flush()
    sys.stdin.read()


def main(show: Callable[[Job, Shown], None], errors: type[BaseException] | tuple[type[BaseException], ...]) -> None:
    """Do the jobs that the argument lists and report each; ``errors`` are those that the client raises."""
    reports = []
    for job in json.loads(sys.argv[1]):
        shown = Shown()
        try:
            show(Job(**job), shown)
        except errors as error:
            status = getattr(error, "status_code", None)
            shown.error = {"kind": type(error).__name__, "status": status, "message": str(error)}
        reports.append(asdict(shown))
    json.dump(reports, sys.stdout)
