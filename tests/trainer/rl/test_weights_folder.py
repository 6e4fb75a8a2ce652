"""The way of new weights to the engine: through memory where there is room, else through the run's folder."""

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl import weights_folder as module
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.weights_folder import weights_folder

MIB = 2**20


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` tells."""

    total: int
    used: int
    free: int


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Free bytes of the folder in memory and of the run's."""
    memory, out_dir = tmp_path / "shm", tmp_path / "run"
    memory.mkdir()
    out_dir.mkdir()
    free = {memory: 64 * MIB, out_dir: 1000 * MIB}
    monkeypatch.setattr(module, "MEMORY", memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, free[Path(folder)]))
    return free


def config(tmp_path: Path, **rollout: Any) -> TrainConfig:
    fields: dict[str, Any] = {"algorithm": "grpo", "model": "m", "data": "d", "retriever": "r", "rollout": rollout}
    return TrainConfig.model_validate(fields | {"out_dir": tmp_path / "run"})


def test_weights_of_which_two_copies_fit_go_through_memory(tmp_path: Path, places: dict[Path, int]) -> None:
    with weights_folder(config(tmp_path), 24 * MIB) as folder:
        assert tmp_path / "shm" in folder.parents
        assert not folder.exists()
        folder.mkdir()
    assert not list((tmp_path / "shm").iterdir())


def test_larger_ones_go_through_the_runs_folder_and_the_log_says_so(
    tmp_path: Path, places: dict[Path, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), weights_folder(config(tmp_path), 25 * MIB) as folder:
        assert folder == tmp_path / "run" / "weights"
        folder.mkdir()
        folder.with_name("weights.part").mkdir()
    assert not list((tmp_path / "run").iterdir())
    [message] = caplog.messages
    assert "has room for 67.1 MB, and weights on their way to the engine need 69.2 MB" in message
    assert "--shm-size" in message


def test_without_room_anywhere_the_run_does_not_begin(tmp_path: Path, places: dict[Path, int]) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"need 2\.11 GB, and neither .*shm nor .*run, which has 1\.05 GB"),
        weights_folder(config(tmp_path), 1000 * MIB),
    ):
        pass


def test_engines_elsewhere_read_from_the_runs_folder_which_stays(tmp_path: Path, places: dict[Path, int]) -> None:
    with weights_folder(config(tmp_path, engine_urls=["http://10.0.0.2:8000"]), MIB) as folder:
        folder.mkdir()
    assert folder.is_dir()
    places[tmp_path / "run"] = MIB
    with (
        pytest.raises(ConfigurationError, match="has room for them"),
        weights_folder(config(tmp_path, engine_urls=["http://10.0.0.2:8000"]), MIB),
    ):
        pass


def test_a_system_without_such_a_place_uses_the_runs_folder(
    tmp_path: Path, places: dict[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMORY", tmp_path / "none")
    with weights_folder(config(tmp_path), MIB) as folder:
        assert folder.parent == tmp_path / "run"
