"""Golden answers by question, for records that do not know theirs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from searchr1.data.questions import asked
from searchr1.files import read_json_lines


@dataclass(frozen=True, slots=True)
class Golden:
    """A question's right answers; more fields in its line do no harm."""

    question: str
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)]


_GOLDEN = TypeAdapter(Golden)


class GoldenAnswers:
    """Right answers by question. A question that stands in several lines has all of their answers."""

    def __init__(self, path: Path | None) -> None:
        """Read ``path``, JSON Lines; None knows no answers. Raises ``DatasetError`` as ``read_json_lines`` does."""
        self.num_known = 0
        """Questions asked for whose answers are known."""
        self._answers: dict[str, tuple[str, ...]] = {}
        for _, line in () if path is None else read_json_lines(path, _GOLDEN):
            known = self._answers.get(asked(line.question), ())
            self._answers[asked(line.question)] = tuple(dict.fromkeys([*known, *line.golden_answers]))

    def of(self, question: str) -> list[str]:
        """Return the answers to ``question``; none where they are not known."""
        answers = self._answers.get(asked(question), ())
        self.num_known += bool(answers)
        return list(answers)
