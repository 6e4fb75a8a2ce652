"""A memory of the questions met so far, by digests: it grows with their number, not with their length."""

from enum import Enum
from hashlib import blake2b

from searchr1.data.questions import Question, asked

_DIGEST_BYTES = 12
"""Among a million questions, two share a digest by chance with a probability of 1e-17."""


class Verdict(Enum):
    """The judgment on a question."""

    NEW = "new"
    REPEATED = "repeated"
    """A known id with its question."""
    ID_TAKEN = "id taken"
    """A known id with another question."""
    DUPLICATE = "duplicates"
    """A new id with a known question."""
    EXCLUDED = "excluded"


class Seen:
    """The questions so far."""

    def __init__(self, *, dedupe: bool) -> None:
        self._dedupe = dedupe
        self._question_of: dict[bytes, bytes] = {}
        self._questions: set[bytes] = set()
        self._excluded: set[bytes] = set()

    def exclude(self, question: Question) -> None:
        """Leave this question out from now on."""
        self._excluded.add(_digest(folded(question.question)))

    def add(self, question: Question) -> Verdict:
        """Judge a question, and remember one that is new."""
        key, text = _digest(question.id), _digest(folded(question.question))
        if text in self._excluded:
            return Verdict.EXCLUDED
        if (known := self._question_of.get(key)) is not None:
            return Verdict.REPEATED if known == text else Verdict.ID_TAKEN
        if self._dedupe and text in self._questions:
            return Verdict.DUPLICATE
        self._question_of[key] = text
        if self._dedupe:
            self._questions.add(text)
        return Verdict.NEW


def folded(question: str) -> str:
    """Return a question without case and spaces, which make no other question of it.

    >>> folded(" Who  wrote Emma ")
    'who wrote emma?'
    """
    return " ".join(asked(question).casefold().split())


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
