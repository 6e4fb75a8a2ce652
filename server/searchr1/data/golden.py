"""Golden answers by question, for records that do not know theirs."""

from collections.abc import Callable
from pathlib import Path

from searchr1.data.questions import asked
from searchr1.data.readers import read
from searchr1.data.sources import SourceFile
from searchr1.errors import DatasetError
from searchr1.files import refused


class GoldenAnswers:
    """Right answers by question. A question that stands in several lines has all of their answers."""

    def __init__(self, path: Path | None, on_bad: Callable[[DatasetError], None] = refused) -> None:
        """Read a file of questions; None knows no answers. Raises and calls ``on_bad`` as ``readers.read`` does."""
        self.num_known = 0
        """Questions asked for whose answers are known."""
        self._answers: dict[str, tuple[str, ...]] = {}
        for where, line in () if path is None else read(SourceFile(path), on_bad):
            if not line.golden_answers:
                on_bad(DatasetError(f"{where}: the question has no golden answers"))
                continue
            known = self._answers.get(asked(line.question), ())
            self._answers[asked(line.question)] = tuple(dict.fromkeys([*known, *line.golden_answers]))

    def of(self, question: str) -> list[str]:
        """Return the answers to ``question``; none where they are not known."""
        answers = self._answers.get(asked(question), ())
        self.num_known += bool(answers)
        return list(answers)
