"""One question on the terminal: the answer on standard output and nothing else, the rest on standard error."""

from searchr1.cli.ask.command import Ask, ask
from searchr1.cli.ask.exit_codes import ExitCode, UsageError
from searchr1.cli.ask.subject import Subject, SubjectKind, chosen_format, chosen_subject
from searchr1.cli.ask.views import OutputFormat

__all__ = [
    "Ask",
    "ExitCode",
    "OutputFormat",
    "Subject",
    "SubjectKind",
    "UsageError",
    "ask",
    "chosen_format",
    "chosen_subject",
]
