"""JSON on standard output: whatever it holds, it steers no terminal and reads as the same value."""

import io
import json

import pytest

from searchr1.cli.ask.output import Output
from searchr1.printable import one_line, printable

STEERING = "\x1b]0;t\x07\x9b31m\x7f\r\u202e\u2066\u2069\u200f\u061c"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_escapes_what_steers_a_terminal(indent: int | None) -> None:
    stdout, value = io.StringIO(), {"answer": f"a{STEERING}b\u2028 日本"}
    Output(stdout).json(json.dumps(value, ensure_ascii=False, indent=indent))
    assert not set(stdout.getvalue()) & (set(STEERING) - set("]0;t31m"))
    assert "日本" in stdout.getvalue()
    assert json.loads(stdout.getvalue()) == value


def test_text_loses_what_steers_a_terminal() -> None:
    assert printable(f"a{STEERING}\tb\nc") == "a]0;t31m\tb\nc"
    assert one_line(f"  a{STEERING}\n  b\u2028c") == "  a]0;t31m b c"
