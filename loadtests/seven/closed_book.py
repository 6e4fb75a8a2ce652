"""Demonstrations for the row SFT: each training question is answered at once, without a search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.seven.questions import Asked, read_questions
from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.errors import DatasetError
from searchr1.evaluation.baselines.trained import KNOWN
from searchr1.evaluation.metrics import normalize
from searchr1.files import write_json_lines
from searchr1.loop.profiles.search_r1 import ANSWER
from searchr1.loop.tags import Pair

KIND = "closed book"
_THINK = Pair.named("think")


@dataclass(frozen=True, slots=True)
class ClosedBook:
    """Numbers of what was written."""

    output: Path
    num_written: int
    num_held_out: int
    """Questions that were left out because they are held out, too."""

    def __str__(self) -> str:
        return f"{self.output}: {self.num_written:,} demonstrations; {self.num_held_out:,} held-out questions left out"


def write_closed_book(questions: Path, held_out: Sequence[Path], output: Path) -> ClosedBook:
    """Write a demonstration of each question of the file ``questions`` that is in no file of ``held_out``.

    Raises:
        DatasetError: a file can't be read, or no question is left.
        ConfigurationError: the output can't be written.
    """
    hidden = {normalize(one.question.question) for path in held_out for one in read_questions(path)}
    asked = read_questions(questions)
    kept = [one for one in asked if normalize(one.question.question) not in hidden]
    if not kept:
        raise DatasetError(f"{questions}: every question is held out")
    num = write_json_lines(output, (one.to_row() for one in _demonstrations(kept)))
    return ClosedBook(output, num, len(asked) - len(kept))


def _demonstrations(questions: Sequence[Asked]) -> Iterator[Demonstration]:
    for one in questions:
        question, answers = one.question, one.question.golden_answers
        text = f"{_THINK.open} {KNOWN} {_THINK.close}\n{ANSWER.open} {answers[0]} {ANSWER.close}"
        turns = (DemonstratedTurn(text),)
        yield Demonstration(question.id, question.question, answers, question.hops or 1, KIND, turns, {})
