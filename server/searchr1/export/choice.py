"""The choice of runs that answered rightly: what rejection sampling trains on."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from searchr1.data.golden import GoldenAnswers
from searchr1.data.questions import asked
from searchr1.errors import DatasetError
from searchr1.evaluation.metrics import exact_match
from searchr1.export.selection import Skipped
from searchr1.files import refused
from searchr1_client.events import Run

WRONG = "wrong"
BEYOND = "right, beyond --each"


class RightRuns:
    """A filter that lets runs pass whose answer is a golden one of their question, up to ``each`` of a question.

    ``golden`` is a file of questions, or one of runs that know their golden answers, as training keeps them.
    """

    def __init__(
        self, golden: Path, *, each: int | None = None, on_bad: Callable[[DatasetError], None] = refused
    ) -> None:
        self._golden, self._each = GoldenAnswers(golden, on_bad), each
        self._counts = Counter[str]()

    def takes(self, run: Run, skipped: Skipped) -> bool:
        """Return whether a run with a trajectory passes; ``skipped`` hears why one does not."""
        assert run.trajectory is not None
        question = asked(run.trajectory.question)
        if run.status == "failed" or not exact_match(run.answer, self._golden.of(question)):
            skipped.add(WRONG)
            return False
        if self._each is not None and self._counts[question] >= self._each:
            skipped.add(BEYOND)
            return False
        self._counts[question] += 1
        return True
