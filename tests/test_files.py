"""Files that are whole or not there, and whose errors they tell."""

import errno
import os
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.files import whole_file


@pytest.mark.parametrize("error", [FileNotFoundError(2, "a certificate"), ConnectionResetError(), TimeoutError("slow")])
def test_errors_of_the_block_are_its_own(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)) as caught, whole_file(tmp_path / "out"):
        raise error
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigurationError, match="cannot be written: File exists"),
        whole_file(tmp_path / "file/out"),
    ):
        pass

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(ConfigurationError, match=r"out cannot be written: No space left"),
        whole_file(tmp_path / "out") as file,
    ):
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_disk_that_fills_up_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "with_name", lambda self, name: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self: None)
    with (
        pytest.raises(ConfigurationError, match=r"out cannot be written: No space left"),
        whole_file(tmp_path / "out") as file,
    ):
        file.write(b"x" * 100_000)


def test_what_is_written_takes_the_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    with whole_file(tmp_path / "out") as file:
        for _ in range(1000):
            file.write(b"after\n")
    assert (tmp_path / "out").read_bytes() == b"after\n" * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
