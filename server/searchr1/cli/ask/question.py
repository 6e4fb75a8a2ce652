"""The question, from the command line or standard input."""

from typing import TextIO

from searchr1.cli.ask.exit_codes import UsageError

MAX_STDIN_BYTES = 1_048_576
"""Most bytes that are read: as much as a server takes in a request by default."""
STDIN = "-"


def read_question(argument: str | None, stdin: TextIO | None) -> str:
    """Return ``argument``, or standard input where that is ``-`` or was left out before a pipe or a file.

    Raises:
        UsageError: there is none, or it can't be sent.
    """
    if argument is not None and argument != STDIN:
        question = argument
    elif stdin is not None and (argument == STDIN or not stdin.isatty()):
        question = _read(stdin)
    else:
        raise UsageError("give a question, or pipe one in")
    question = question.strip()
    if not question:
        raise UsageError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the question holds characters that can't be sent; retype it") from error
    return question


def _read(stdin: TextIO) -> str:
    try:
        data = stdin.buffer.read(MAX_STDIN_BYTES + 1)
    except OSError as error:
        raise UsageError(f"standard input can't be read: {error}") from error
    if len(data) > MAX_STDIN_BYTES:
        raise UsageError(f"standard input holds more than {MAX_STDIN_BYTES:,} bytes: too much for a question")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("standard input is not UTF-8 text") from error
