"""Marks that follow from folders and fixtures, and the watch over tests without them."""

import subprocess
import sys
from pathlib import Path

import pytest

from searchr1.tokenizer import Tokenizer
from tests.support.tiers import HEAVY, OF_FIXTURE, OF_FOLDER, TESTS, Watch, is_heavy_whole, marks_of, own_marks

STARTS = ("subprocess.Popen", (sys.executable, ["python"], None, None))


def test_every_mark_is_declared(pytestconfig: pytest.Config) -> None:
    declared = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert declared >= HEAVY >= {*OF_FOLDER.values(), *OF_FIXTURE.values()}


def test_folders_and_fixtures_are_there() -> None:
    assert [folder for folder in OF_FOLDER if not (TESTS / folder).is_dir()] == []
    source = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py"))
    assert [name for name in OF_FIXTURE if f"def {name}(" not in source] == []


def test_a_test_has_the_mark_of_its_fixture(request: pytest.FixtureRequest) -> None:
    lacking = [
        f"{item.nodeid} uses {name}"
        for item in request.session.items
        for name in getattr(item, "fixturenames", ())
        if name in OF_FIXTURE and item.get_closest_marker(OF_FIXTURE[name]) is None
    ]
    assert lacking == []


def test_marks_follow_from_a_folder_and_from_fixtures() -> None:
    assert marks_of(TESTS / "loop" / "test_tags.py") == set()
    assert marks_of(TESTS / "trainer" / "rl" / "test_losses.py") == {"torch"}
    assert marks_of(TESTS / "e2e" / "test_demo.py", ["demo", "tmp_path"]) == {"vllm"}


@pytest.mark.parametrize(
    ("source", "marks"),
    [
        ("pytestmark = pytest.mark.redis", {"redis"}),
        ('pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]', {"vllm"}),
        ("@pytest.mark.redis\ndef test_one() -> None: ...", set()),
        ("", set()),
    ],
)
def test_a_module_is_judged_by_its_source(tmp_path: Path, source: str, marks: set[str]) -> None:
    module = tmp_path / "test_it.py"
    module.write_text(source, encoding="utf-8")
    assert own_marks(source) & HEAVY == marks
    assert is_heavy_whole(module) == bool(marks)


def test_a_test_without_a_mark_starts_no_program(request: pytest.FixtureRequest) -> None:
    with pytest.raises(RuntimeError, match="starts a program without a mark"):
        subprocess.run([sys.executable, "--version"], check=True)
    watch = Watch(fast=False)
    watch(*STARTS)
    watch.begin(request.node)
    watch("subprocess.Popen", ("/usr/bin/git", ["git"], None, None))
    with pytest.raises(RuntimeError, match=request.node.name):
        watch(*STARTS)
    watch.end()
    watch(*STARTS)


@pytest.mark.process
def test_a_test_with_a_mark_may(request: pytest.FixtureRequest) -> None:
    watch = Watch(fast=True)
    watch.begin(request.node)
    watch(*STARTS)


def test_only_a_fast_session_imports_no_torch() -> None:
    Watch(fast=False)("import", ("torch",))
    with pytest.raises(RuntimeError, match="torch is imported"):
        Watch(fast=True)("import", ("torch",))


def test_the_sessions_tokenizer_is_that_of_its_model(tokenizer: Tokenizer, model_dir: Path) -> None:
    loaded = Tokenizer.load(str(model_dir))
    assert tokenizer.same_as(loaded)
    assert tokenizer.render("Why?") == loaded.render("Why?")
