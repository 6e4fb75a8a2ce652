"""A question, as training and evaluation take it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


@dataclass(frozen=True, slots=True)
class Question:
    """One question; any of its golden answers is right."""

    id: Text
    question: Text
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Any of them is right. ``readers.read`` leaves it empty where a row has none."""
    hops: int | None = None
    """Facts that must be combined to answer it."""
    kind: str | None = None
    """A name for the chain of relations it asks for."""
    data_source: str | None = None
    """The set it belongs to, such as ``nq``: upstream's column of this name."""


def asked(question: str) -> str:
    """Return a question as upstream's data has it: stripped, with a question mark at its end."""
    question = question.strip()
    return question if question.endswith("?") else f"{question}?"


def qualified_id(data_source: str, id: str) -> str:
    """Return an id that is unique over several sets; every set of FlashRAG begins with ``test_0`` or ``train_0``.

    >>> qualified_id("nq", "test_0"), qualified_id("nq", "nq/test_0"), qualified_id("atlas", "atlas-test-1")
    ('nq/test_0', 'nq/test_0', 'atlas-test-1')
    """
    return id if id.startswith((f"{data_source}/", f"{data_source}-")) else f"{data_source}/{id}"
