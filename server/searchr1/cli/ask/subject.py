"""The run to show and its format: the command line's choices, checked against each other."""

from dataclasses import dataclass
from enum import Enum
from typing import TextIO

from searchr1.cli.ask.exit_codes import UsageError
from searchr1.cli.ask.question import read_question
from searchr1.cli.ask.views import OutputFormat


class SubjectKind(Enum):
    """Meaning of ``Subject.text``."""

    QUESTION = "question"
    RESUMED = "resumed"
    """The id of a stored run, to be followed from its first event on."""
    REPLAYED = "replayed"
    """The id of a stored run, to be run again with the searches of its record."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The run to show."""

    kind: SubjectKind
    text: str


def chosen_subject(
    question: str | None, stdin: TextIO | None, *, resume: str | None = None, replay: str | None = None
) -> Subject:
    """Return the one subject that was given; standard input is read only for a question. Raises ``UsageError``."""
    stored = {SubjectKind.RESUMED: resume, SubjectKind.REPLAYED: replay}
    given = [Subject(kind, run_id) for kind, run_id in stored.items() if run_id is not None]
    if not given:
        return Subject(SubjectKind.QUESTION, read_question(question, stdin))
    if len(given) > 1 or question is not None:
        raise UsageError("give one of these: a question, --resume or --replay")
    return given[0]


def chosen_format(*, json: bool, ndjson: bool, quiet: bool) -> OutputFormat:
    """Return the one format that was given, else ``STEPS``. Raises ``UsageError``."""
    formats = {OutputFormat.JSON: json, OutputFormat.NDJSON: ndjson, OutputFormat.QUIET: quiet}
    given = [name for name, chosen in formats.items() if chosen]
    if len(given) > 1:
        raise UsageError(f"give one of these: {', '.join(f'--{name}' for name in given)}")
    return given[0] if given else OutputFormat.STEPS
