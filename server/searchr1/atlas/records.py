"""The records that Atlas writes for the warm-up: demonstrations and readings, and their JSON lines."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from searchr1.files import read_json_lines
from searchr1.loop.types import Passage

RENAMED = "-swapped"
"""Ending of the ids of demonstrations whose entities have other names than in the world."""


@dataclass(frozen=True, slots=True)
class DemonstratedTurn:
    """A turn: the policy's text, and for a search its query and the passages that it returned."""

    text: str
    """Completion up to its action's closing tag."""
    query: str | None = None
    """None in a turn that answers."""
    passages: tuple[Passage, ...] = ()
    """Titles have their quotes. Empty in a turn that answers."""

    def to_row(self) -> dict[str, Any]:
        """Return the turn as JSON has it."""
        return {"text": self.text, "query": self.query, "passages": [_passage_row(p) for p in self.passages]}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A whole rollout that answers a question. The last turn answers, the others search."""

    id: str
    question: str
    golden_answers: tuple[str, ...]
    hops: int
    kind: str
    turns: tuple[DemonstratedTurn, ...]
    entities: Mapping[str, str]
    """Names that it reasons about, each with its type: country, city, currency or language."""

    @property
    def is_renamed(self) -> bool:
        """True if its entities have other names than in the world, so that they can only be read, not known."""
        return self.id.endswith(RENAMED)

    def texts(self) -> Iterator[str]:
        """Yield every text of the demonstration: question, answers, turns, and the titles and texts of passages."""
        yield self.question
        yield from self.golden_answers
        for turn in self.turns:
            yield turn.text
            for passage in turn.passages:
                yield passage.title
                yield passage.text

    def to_row(self) -> dict[str, Any]:
        """Return the demonstration as one JSON record."""
        return {
            "id": self.id,
            "question": self.question,
            "golden_answers": list(self.golden_answers),
            "hops": self.hops,
            "kind": self.kind,
            "turns": [turn.to_row() for turn in self.turns],
            "entities": dict(self.entities),
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact that a passage states, in the teacher's words."""

    document: str
    """Number of the passage: ``Doc 2``."""
    quote: str
    """The passage from there to the sentence that gives the fact: ``(Title: "Mali") The capital of Mali is Bamako.``"""
    given: str
    """Words that follow from it, up to the value: ``So the capital of Mali is``."""
    value: str
    """The value as the passage has it: ``Bamako``."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Passages and statements about them, in no particular order."""

    passages: tuple[Passage, ...]
    statements: tuple[Statement, ...]

    def texts(self) -> Iterator[str]:
        """Yield every text in it."""
        for passage in self.passages:
            yield passage.title
            yield passage.text
        for stated in self.statements:
            yield f"{stated.document}{stated.quote} {stated.given} {stated.value}"

    def to_row(self) -> dict[str, Any]:
        """Return the reading as one JSON record."""
        return {
            "passages": [_passage_row(passage) for passage in self.passages],
            "statements": [asdict(stated) for stated in self.statements],
        }


def read_demonstrations(path: Path) -> Iterator[Demonstration]:
    """Yield the demonstrations of a file that ``searchr1 demo build`` wrote.

    Raises:
        DatasetError: the file can't be read, or a line is not a demonstration.
    """
    for _, row in read_json_lines(path, TypeAdapter(_DemonstrationRow)):
        turns = tuple(DemonstratedTurn(turn.text, turn.query, _passages(turn.passages)) for turn in row.turns)
        yield Demonstration(row.id, row.question, row.golden_answers, row.hops, row.kind, turns, row.entities)


def read_readings(path: Path) -> Iterator[Reading]:
    """Yield the readings of a file that ``searchr1 demo build --readings`` wrote.

    Raises:
        DatasetError: the file can't be read, or a line is not a reading.
    """
    for _, row in read_json_lines(path, TypeAdapter(_ReadingRow)):
        yield Reading(_passages(row.passages), row.statements)


@dataclass(frozen=True, slots=True)
class _PassageRow:
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class _TurnRow:
    text: str
    query: str | None
    passages: tuple[_PassageRow, ...]


@dataclass(frozen=True, slots=True)
class _DemonstrationRow:
    id: str
    question: str
    golden_answers: tuple[str, ...]
    hops: int
    kind: str
    turns: Annotated[tuple[_TurnRow, ...], Field(min_length=1)]
    entities: dict[str, str]


@dataclass(frozen=True, slots=True)
class _ReadingRow:
    passages: tuple[_PassageRow, ...]
    statements: Annotated[tuple[Statement, ...], Field(min_length=1)]


def _passage_row(passage: Passage) -> dict[str, str]:
    return {"title": passage.title, "text": passage.text}


def _passages(rows: tuple[_PassageRow, ...]) -> tuple[Passage, ...]:
    return tuple(Passage("", row.title, row.text) for row in rows)
