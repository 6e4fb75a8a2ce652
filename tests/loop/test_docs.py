"""docs/reference/loop.md and the loop's docstrings: examples run as shown, and tables name what there is."""

import doctest
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from searchr1.loop import tags
from searchr1.loop.profiles import base
from searchr1.loop.profiles.registry import registered
from searchr1.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "reference" / "loop.md").read_text("utf-8")


@pytest.mark.process
def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", DOCS, re.DOTALL).groups()  # type: ignore[union-attr]
    assert len(code.splitlines()) <= 25
    (tmp_path / "example.py").write_text(code, "utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == shown


def test_every_profile_has_a_row_with_its_stops() -> None:
    rows = {}
    for line in DOCS.partition("| profile | checkpoints |")[2].partition("\n\n")[0].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        if cells[0].startswith("`"):
            rows[cells[0].strip("`")] = cells
    assert rows.keys() == {profile.name for profile in registered()}
    for profile in registered():
        _, _, stops, passages, answer, invalid = rows[profile.name]
        assert tuple(re.findall(r"`(.+?)`", stops.replace("\\|", "|"))) == profile.tags.stops
        assert passages.replace("\\|", "|").strip("`") == profile.tags.observation.open
        assert ("<answer>" in answer) == (profile.tags.answer is not None)
        assert invalid == ("ends the run" if profile.retry is None else "retry text")


def test_the_bounds_that_it_advises_are_settings() -> None:
    rows = re.findall(r"^\| .+ \| `((?:SEARCHR1_\w+=\d+ ?)+)` \|$", DOCS, re.MULTILINE)
    assert len(rows) == 2
    for row in rows:
        given = {name.removeprefix("SEARCHR1_").lower(): value for name, value in re.findall(r"(\w+)=(\d+)", row)}
        assert given.keys() <= Settings.model_fields.keys()
        assert Settings.model_validate({"model": "m", "retriever": "none", **given}).limits().max_turns in (8, 10)


def test_the_files_that_it_names_are_there() -> None:
    named = re.findall(r"`((?:loop|tests)/[\w/]+(?:\.py|/)|driver\.py)`", DOCS)
    assert len(named) >= 6
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "server" / "searchr1" / name).exists(), name


@pytest.mark.parametrize("module", [tags, base], ids=lambda module: str(module.__name__))
def test_the_examples_in_docstrings(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
