"""docs/architecture.md against the code, and the form of the decisions in docs/adr."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

import searchr1
import searchr1_client
from tests.gateway.conftest import eventually, running_stage, sse_payloads

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
SOURCES = (Path(searchr1.__file__).parent, Path(searchr1_client.__file__).parent.parent)
ROOMS = "## Rooms\n"
PATH_OF_A_REQUEST = "## One request, file by file\n"
RECORD = "searchr1_client/fold.py"
"""Entered last: the stored record is folded from the events after the stream has ended."""


def first_cells(heading: str) -> list[str]:
    """The names in the first column of the table under ``heading``, in its order."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(heading) == 1
    table = text.split(heading)[1].split("\n#")[0]
    return [name for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)]


@contextmanager
def entered() -> Iterator[set[str]]:
    """Collect the project's files in which a function is called in this thread meanwhile."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            path = Path(frame.f_code.co_filename)
            files.update(path.relative_to(root).as_posix() for root in SOURCES if path.is_relative_to(root))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(before)


async def test_the_page_lists_the_files_that_one_streamed_request_enters() -> None:
    asked = {"question": "Which currency is used in Mali?", "stream": True}
    async with running_stage() as stage:
        with entered() as files:
            body = (await stage.client.post("/v1/research", json=asked)).text
            await eventually(lambda: RECORD in files)
    assert '"type":"run.completed"' in sse_payloads(body)[-1]
    on_page = first_cells(PATH_OF_A_REQUEST)
    assert len(set(on_page)) == len(on_page)
    assert sorted(files - set(on_page)) == []
    assert sorted(set(on_page) - files) == []


def test_every_room_has_a_row() -> None:
    server = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in SOURCES[0].iterdir()
        if path.name[0] not in "._" and path.name != "py.typed"
    }
    assert sorted(first_cells(ROOMS)) == sorted({*server, "client/searchr1_client/"})


def test_every_decision_has_a_date_a_status_and_a_row() -> None:
    folder = PAGE.parent / "adr"
    index = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \[(\d+)\]\((\S+)\) \| .+ \| (\d{4}-\d\d-\d\d) \| (accepted|superseded)", index, re.MULTILINE
    )
    head = re.compile(
        r"# (\d+)\. .+\n\n\*\*Date:\*\* (\d{4}-\d\d-\d\d).* · \*\*Status:\*\* (accepted|superseded).*\n\n## Context\n"
    )
    heads = []
    for path in sorted(folder.glob("0*.md")):
        found = head.match(path.read_text(encoding="utf-8"))
        assert found is not None, f"{path.name} has no date or status"
        heads.append((found[1], path.name, found[2], found[3]))
    assert rows == heads
    assert [int(number) for number, *_ in heads] == list(range(1, len(heads) + 1))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/guides/security.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    """Paths are given from the repository's root, or below the server's package; ``NAME`` stands for a new file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w.-]+/[\w./-]+)`", text) if "NAME" not in name}
    assert len(named) > 20
    assert sorted(name for name in named if not any((root / name).exists() for root in (ROOT, *SOURCES))) == []
