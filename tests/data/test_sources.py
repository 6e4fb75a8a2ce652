"""What a name stands for: files, folders, sets and datasets in the hub's cache."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from searchr1.data.hub import is_hub_name
from searchr1.data.sets import FLASHRAG_REPO, SETS, UPSTREAM_REPO
from searchr1.data.sources import Places, SourceFile, locate, registry
from searchr1.data.sources.base import NamedSource
from searchr1.data.sources.registry import named_sources
from searchr1.errors import DatasetError
from tests.data.files import COMMIT, flashrag_folder, hub_cache, seven_sets, write_lines


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; the network is off."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_every_named_source_claims_the_names_that_it_hints_at() -> None:
    claimed = {source.hint: source for source in named_sources()}
    atlas, sets = claimed["'atlas'"], claimed[f"one of {', '.join(SETS)}, 'seven' for all of these"]
    assert [name for name in ("atlas", "nq", "NQ", "seven", "./nq", "a/b") if sets.claims(name)] == [
        "nq",
        "NQ",
        "seven",
    ]
    assert [name for name in ("atlas", "Atlas", "nq") if atlas.claims(name)] == ["atlas"]


def test_a_source_is_one_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SOURCES", registry.SOURCES.copy())
    registry.register(NamedSource("'mine'", lambda name: name == "mine", lambda *_: [SourceFile(tmp_path, "mine")]))
    assert locate(["mine"], Places()) == (SourceFile(tmp_path, "mine"),)
    hints = ", ".join(source.hint for source in named_sources())
    with pytest.raises(DatasetError, match=f"give {hints}, a file, a folder, or a hub dataset"):
        locate(["nothing"], Places())
    assert "'mine'" in hints


def test_files_are_themselves_and_their_names_may_name_a_set(tmp_path: Path) -> None:
    plain = write_lines(tmp_path / "mine.jsonl", {})
    named = write_lines(tmp_path / "musique.jsonl", {})
    inside = write_lines(tmp_path / "NQ" / "test.jsonl", {})
    assert locate([str(plain), str(named), str(inside)], Places()) == (
        SourceFile(plain),
        SourceFile(named, "musique"),
        SourceFile(inside, "nq"),
    )


@pytest.mark.parametrize("end", [".gz", ".xz", ".bz2", ".zst"])
def test_packed_lines_are_found_as_plain_ones_are(tmp_path: Path, end: str) -> None:
    shared = write_lines(tmp_path / f"train.jsonl{end}", {})
    own = write_lines(tmp_path / "nq" / f"train.jsonl{end}", {})
    assert locate([str(shared), str(own)], Places()) == (SourceFile(shared), SourceFile(own, "nq"))
    assert locate([str(tmp_path)], Places("train")) == (SourceFile(shared),)
    assert locate(["nq"], Places("train", data=str(tmp_path))) == (SourceFile(own, "nq"),)
    plain = write_lines(tmp_path / "train.jsonl", {})
    assert locate([str(tmp_path)], Places("train")) == (SourceFile(plain),)
    with pytest.raises(DatasetError, match="does not exist"):
        locate([f"gone.jsonl{end}"], Places())


def test_sets_share_upstreams_file_and_are_read_in_one_pass(tmp_path: Path) -> None:
    path = seven_sets(tmp_path / "test.parquet")
    places = Places(data=str(tmp_path))
    assert locate(["nq", "HotpotQA", "nq"], places) == (SourceFile(path, None, frozenset({"nq", "hotpotqa"})),)
    assert locate(["seven"], places) == (SourceFile(path, None, frozenset(SETS)),)
    assert locate(["nq"], Places(data=str(path))) == (SourceFile(path, None, frozenset({"nq"})),)


def test_sets_have_their_own_files_in_flashrags_layout(tmp_path: Path) -> None:
    root = flashrag_folder(tmp_path)
    assert locate(["nq", "2wiki"], Places(data=str(root))) == (
        SourceFile(root / "nq" / "test.jsonl", "nq"),
        SourceFile(root / "2wikimultihopqa" / "dev.jsonl", "2wikimultihopqa"),
    )
    assert [file.data_source for file in locate([str(root)], Places())] == list(SETS)
    train = locate([str(root)], Places(split="train"))
    assert [file.path.relative_to(root).as_posix() for file in train] == ["nq/train.jsonl", "hotpotqa/train.jsonl"]


def test_a_set_that_a_folder_lacks_is_missed_by_its_file_name(tmp_path: Path) -> None:
    root = flashrag_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"'train'.*popqa/train\.jsonl, train\.parquet"):
        locate(["nq", "popqa"], Places(split="train", data=str(root)))
    with pytest.raises(DatasetError, match="'validation'"):
        locate([str(tmp_path / "nq")], Places(split="validation"))


def test_atlas_is_found_by_its_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "atlas" / "questions-validation.jsonl", {})
    assert locate(["atlas"], Places("validation", tmp_path)) == (SourceFile(path, "atlas"),)
    with pytest.raises(DatasetError, match="searchr1 demo build"):
        locate(["atlas"], Places("test", tmp_path))


def test_a_hub_name_is_read_from_the_cache(cache: Path) -> None:
    upstream = seven_sets(hub_cache(cache, UPSTREAM_REPO) / "test.parquet")
    flashrag = flashrag_folder(hub_cache(cache, FLASHRAG_REPO))
    assert locate([UPSTREAM_REPO], Places()) == (SourceFile(upstream),)
    assert locate([f"{UPSTREAM_REPO}@{COMMIT}"], Places()) == (SourceFile(upstream),)
    assert locate(["bamboogle"], Places()) == (SourceFile(upstream, None, frozenset({"bamboogle"})),)
    assert locate(["bamboogle"], Places(data=FLASHRAG_REPO)) == (
        SourceFile(flashrag / "bamboogle" / "test.jsonl", "bamboogle"),
    )
    with pytest.raises(DatasetError, match=r"train\.parquet"):
        locate([UPSTREAM_REPO], Places(split="train"))


def test_a_folder_of_the_cache_can_be_given_as_it_is(tmp_path: Path) -> None:
    files = hub_cache(tmp_path, UPSTREAM_REPO)
    path = seven_sets(files / "test.parquet")
    assert locate([str(files.parent.parent)], Places()) == (SourceFile(path),)


def test_offline_and_not_in_the_cache_the_error_says_what_to_do(cache: Path) -> None:
    with pytest.raises(DatasetError, match=rf"{UPSTREAM_REPO} is no file .*HF_HUB_OFFLINE.*give the path") as caught:
        locate(["nq"], Places())
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.process
def test_a_hub_that_cannot_be_reached_is_an_error_of_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "searchr1.cli", "data", "prepare", "nq", "--output", "out.jsonl"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"searchr1: {UPSTREAM_REPO} is no file or folder here")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nothing.jsonl", "nothing.jsonl does not exist. Give 'atlas' or the path"),
        ("here/nothing.parquet", "does not exist"),
        ("./nothing", "does not exist"),
        ("squadd", f"'squadd' is no dataset: give {', '.join(source.hint for source in named_sources())}, a file"),
        ("a b/c", "is no dataset"),
    ],
)
def test_a_name_that_means_nothing_is_refused(source: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        locate([source], Places())


def test_what_can_be_a_hub_name() -> None:
    assert is_hub_name("owner/name")
    assert is_hub_name("owner/name@main")
    assert not any(map(is_hub_name, ["name", "../name", "a/b/c", "owner/", "owner/näme"]))
