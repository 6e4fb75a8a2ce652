"""The checkpoints that a run keeps: the last, the best, and what a kill leaves of them."""

from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.trainer.kept_checkpoints import KeptCheckpoints


def saved(out_dir: Path, *steps: int, keep: int = 2) -> KeptCheckpoints:
    """Checkpoints of ``steps``, each with its step in a file."""
    kept = KeptCheckpoints(out_dir, keep=keep)
    for step in steps:
        write(kept.folder(step), step)
    return kept


def write(folder: Path, step: int) -> None:
    folder.mkdir(parents=True)
    (folder / "step").write_text(str(step), "utf-8")


def step_of(folder: Path) -> int:
    return int((folder / "step").read_text("utf-8"))


def names(out_dir: Path) -> list[str]:
    return sorted(path.name for path in out_dir.iterdir())


def test_links_lead_to_the_last_and_the_best(tmp_path: Path) -> None:
    kept = saved(tmp_path, 10, 20)
    kept.point(last=10, best=10)
    kept.point(last=20)
    assert (step_of(tmp_path / "checkpoint"), step_of(tmp_path / "checkpoint-best")) == (20, 10)
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    assert step_of(moved / "checkpoint") == 20


def test_the_last_ones_and_the_best_stay(tmp_path: Path) -> None:
    kept = saved(tmp_path, 10, 20, 30, 40, 1_000_000)
    kept.prune(last=40, best=10)
    assert kept.steps() == [10, 30, 40]
    kept.prune(last=40, best=None)
    assert kept.steps() == [30, 40]


def test_a_folder_of_earlier_versions_gives_way_to_the_link(tmp_path: Path) -> None:
    kept = saved(tmp_path, 20)
    write(tmp_path / "checkpoint", 10)
    kept.point(last=20)
    assert step_of(tmp_path / "checkpoint") == 20
    assert names(tmp_path) == ["checkpoint", "checkpoint-000020"]


def test_what_a_kill_left_is_put_right(tmp_path: Path) -> None:
    kept = saved(tmp_path, 10, 30)
    write(tmp_path / "checkpoint-000010.part", 10)  # Half written, or half deleted.
    write(tmp_path / "checkpoint-000010.old", 10)  # Replaced, and not yet deleted.
    write(tmp_path / "checkpoint-000020.old", 20)  # Set aside, and its successor not yet in place.
    kept.point(last=30, best=30)
    kept.recover(last=20, best=10)
    assert names(tmp_path) == ["checkpoint", "checkpoint-000010", "checkpoint-000020", "checkpoint-best"]
    assert (step_of(tmp_path / "checkpoint"), step_of(tmp_path / "checkpoint-best")) == (20, 10)


def test_the_best_of_a_step_that_is_taken_again_is_none_yet(tmp_path: Path) -> None:
    kept = saved(tmp_path, 10, 15)
    kept.point(last=10, best=15)
    kept.recover(last=10, best=None)
    assert names(tmp_path) == ["checkpoint", "checkpoint-000010"]


def test_a_run_that_begins_leaves_what_it_finds_until_its_first_save(tmp_path: Path) -> None:
    kept = saved(tmp_path, 10, 20)
    kept.recover(last=-1, best=None)
    assert kept.steps() == [10, 20]
    write(kept.folder(5), 5)
    kept.prune(last=5, best=None)
    assert kept.steps() == [5]


def test_a_fresh_folder_has_nothing_to_put_right(tmp_path: Path) -> None:
    KeptCheckpoints(tmp_path / "none", keep=1).recover(last=-1, best=None)
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_refuses_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(ConfigurationError, match="checkpoint can't be made a link: Operation not permitted"):
        saved(tmp_path, 1).point(last=1)
