"""What is asked: the question's sources, and choices that exclude each other."""

import io

import pytest

from searchr1.cli.ask.exit_codes import UsageError
from searchr1.cli.ask.question import MAX_STDIN_BYTES, read_question
from searchr1.cli.ask.subject import Subject, SubjectKind, chosen_format, chosen_subject
from searchr1.cli.ask.views import OutputFormat


class Pipe(io.TextIOWrapper):
    def __init__(self, data: bytes, *, terminal: bool = False) -> None:
        self.raw_data = io.BytesIO(data)
        super().__init__(self.raw_data, encoding="ascii")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("argument", "data", "terminal", "expected"),
    [
        ("Why?", b"", True, "Why?"),
        ("Why?", b"How?", False, "Why?"),
        ("-", b"How?\n", False, "How?"),
        ("-", b"How?\n", True, "How?"),
        (None, "\ufeff Où ?\n".encode(), False, "Où ?"),
        (None, b"Which\ncurrency?\n", False, "Which\ncurrency?"),
    ],
)
def test_a_question_comes_from_the_line_or_from_stdin(
    argument: str | None, data: bytes, terminal: bool, expected: str
) -> None:
    assert read_question(argument, Pipe(data, terminal=terminal)) == expected


@pytest.mark.parametrize(
    ("argument", "data", "terminal", "says"),
    [
        (None, b"How?", True, "give a question"),
        ("  ", b"How?", False, "empty"),
        (None, b" \n", False, "empty"),
        ("-", b"\xff\xfe", False, "UTF-8"),
        ("-", b"x" * (MAX_STDIN_BYTES + 1), False, "too much"),
        ("half \ud800", b"", True, "can't be sent"),
    ],
)
def test_what_is_no_question_is_refused(argument: str | None, data: bytes, terminal: bool, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_question(argument, Pipe(data, terminal=terminal))


def test_a_closed_stdin_holds_no_question() -> None:
    with pytest.raises(UsageError, match="give a question"):
        read_question(None, None)


def test_no_more_of_stdin_is_read_than_a_question_may_have() -> None:
    endless = Pipe(b"x" * (3 * MAX_STDIN_BYTES))
    with pytest.raises(UsageError, match="too much"):
        read_question("-", endless)
    assert endless.raw_data.tell() == MAX_STDIN_BYTES + 1


def test_a_stored_run_needs_no_question() -> None:
    stdin = Pipe(b"How?")
    assert chosen_subject(None, stdin, resume="run_1") == Subject(SubjectKind.RESUMED, "run_1")
    assert chosen_subject(None, stdin, replay="run_1") == Subject(SubjectKind.REPLAYED, "run_1")
    assert stdin.raw_data.tell() == 0
    assert chosen_subject(None, stdin) == Subject(SubjectKind.QUESTION, "How?")


@pytest.mark.parametrize(
    ("question", "resume", "replay"), [("Why?", "run_1", None), ("Why?", None, "run_1"), (None, "run_1", "run_2")]
)
def test_one_subject_at_a_time(question: str | None, resume: str | None, replay: str | None) -> None:
    with pytest.raises(UsageError, match="give one of these"):
        chosen_subject(question, None, resume=resume, replay=replay)


def test_one_format_at_a_time() -> None:
    assert chosen_format(json=False, ndjson=False, quiet=False) is OutputFormat.STEPS
    assert chosen_format(json=False, ndjson=True, quiet=False) is OutputFormat.NDJSON
    with pytest.raises(UsageError, match="give one of these: --json, --quiet"):
        chosen_format(json=True, ndjson=False, quiet=True)
