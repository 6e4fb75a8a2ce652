"""Standard output, which programs that call ``searchr1 ask`` read."""

import os
import re
import sys
from typing import TextIO

from searchr1.printable import json_escaped, plain_json_text


class OutputError(Exception):
    """Standard output is closed, full, or nobody reads it. ``__cause__`` is the system's own error."""


class Output:
    """Standard output, to which whole lines are written at once. Raises ``OutputError``."""

    def __init__(self, stdout: TextIO | None) -> None:
        """Write to ``stdout``; None is what Python gives where standard output was closed before it began."""
        self._stdout = stdout

    @property
    def is_terminal(self) -> bool:
        """True where a person reads it."""
        return self._stdout is not None and self._stdout.isatty()

    def text(self, text: str) -> None:
        """Write text and a newline. What the output's encoding can't spell becomes ``?``."""
        self._write(text.encode(self._encoding, errors="replace").decode(self._encoding))

    def json(self, json: str) -> None:
        """Write a JSON text and a newline, with escapes for what the encoding can't spell and what steers terminals."""
        json = plain_json_text(json)
        try:
            json.encode(self._encoding)
        except UnicodeEncodeError:
            json = re.sub(r"[^\x00-\x7f]", lambda match: json_escaped(match[0]), json)
        self._write(json)

    @property
    def _encoding(self) -> str:
        return (self._stdout.encoding if self._stdout is not None else None) or "utf-8"

    def _write(self, line: str) -> None:
        if self._stdout is None:
            raise OutputError("standard output is closed")
        try:
            print(line, file=self._stdout, flush=True)
        except OSError as error:
            silence(self._stdout)
            raise OutputError(f"standard output can't be written: {error.strerror or error}") from error


def silence(stream: TextIO) -> None:
    """Drop what is still buffered and all that follows; otherwise Python complains of it when it exits."""
    if stream not in (sys.stdout, sys.stderr):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
