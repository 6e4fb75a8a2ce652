"""docs/reference/settings.md, which is written from the class of the settings."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import settings_page
from scripts.settings_page import DOCSTRINGS, PAGE, docstrings, main, page
from searchr1.settings import Settings

WORDS = {
    "_s": "second",
    "_ms": "millisecond",
    "_mib": "mib",
    "_gib": "gib",
    "_bytes": "bytes",
    "_chars": "characters",
    "_tokens": "tokens",
    "_usd": "dollars",
}
"""Endings of names, and how their units are called."""


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run .venv/bin/python scripts/settings_page.py"


def test_every_setting_has_a_docstring_and_one_row() -> None:
    assert [name for name in Settings.model_fields if not DOCSTRINGS.get(name)] == []
    rows = [line for line in page().splitlines() if line.startswith("| `SEARCHR1_")]
    variables = {line.split("`")[1] for line in rows}
    assert len(rows) == len(variables) == len(Settings.model_fields)
    expected = {f"SEARCHR1_{name.upper()}" for name in Settings.model_fields if name != "provider_keys"}
    assert variables == expected | {"SEARCHR1_<NAME>_API_KEY"}


def unit_of(name: str) -> str:
    return next((word for ending, word in WORDS.items() if name.endswith(ending)), "")


def test_a_docstring_names_the_unit_of_its_setting() -> None:
    measured = [name for name in Settings.model_fields if unit_of(name)]
    assert len(measured) > 25
    assert [name for name in measured if unit_of(name) not in DOCSTRINGS[name].lower()] == []


@dataclass
class Undocumented:
    one: int = 1
    other: int = 2
    """It says something,
    on two lines."""


def test_a_field_without_a_docstring_is_seen() -> None:
    assert docstrings(Undocumented) == {"other": "It says something, on two lines."}


def test_the_script_writes_and_tells_whether_the_page_is_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "settings.md"
    other.write_text("# Settings\n")
    monkeypatch.setattr(settings_page, "PAGE", other)
    monkeypatch.setattr("sys.argv", ["settings_page.py", "--check"])
    assert main() == 1
    monkeypatch.setattr("sys.argv", ["settings_page.py"])
    assert main() == 0
    assert other.read_text("utf-8") == page()
    monkeypatch.setattr("sys.argv", ["settings_page.py", "--check"])
    assert main() == 0
