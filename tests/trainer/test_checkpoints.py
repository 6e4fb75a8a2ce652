"""Checkpoints that servers take, and states that only their own run resumes."""

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from searchr1.demo.bundle import CHECKPOINT
from searchr1.errors import ConfigurationError, TrainingError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.checkpoints import find_model, load_state, save_state, write_checkpoint
from searchr1.trainer.rl.policy import load_policy

CPU = torch.device("cpu")


def test_a_checkpoint_is_a_whole_folder_with_the_weights_of_now(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model: Any = load_policy(CHECKPOINT, CPU)
    capfd.readouterr()
    folder = tmp_path / "checkpoint"
    write_checkpoint(model, CHECKPOINT, folder, dtype=torch.bfloat16)
    with torch.no_grad():
        model.model.norm.weight += 1.0
    write_checkpoint(model, CHECKPOINT, folder, dtype=torch.float32)
    assert capfd.readouterr() == ("", "")  # transformers draws a bar by default, amid those of the run.
    again: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert Tokenizer.load(str(folder)).same_as(Tokenizer.load(str(CHECKPOINT)))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_what_is_not_finite_takes_no_ones_place(tmp_path: Path) -> None:
    model: Any = load_policy(CHECKPOINT, CPU)
    folder = tmp_path / "checkpoint"
    write_checkpoint(model, CHECKPOINT, folder, dtype=torch.float32)
    save_state(tmp_path, {"step": 1, "moments": [{"exp_avg": torch.ones(2)}]})
    with torch.no_grad():
        model.model.norm.weight[3] = float("inf")
    with pytest.raises(TrainingError, match=r"checkpoint is not written: model\.norm\.weight holds numbers"):
        write_checkpoint(model, CHECKPOINT, folder, dtype=torch.float32)
    with pytest.raises(TrainingError, match=r"state\.pt is not written: moments\.0\.exp_avg holds"):
        save_state(tmp_path, {"step": 2, "moments": [{"exp_avg": torch.tensor([1.0, float("nan")])}]})
    again: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert all(torch.isfinite(tensor).all() for tensor in again.state_dict().values())
    state = load_state(tmp_path, {}, CPU)
    assert state is not None
    assert state["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "state.pt"]


def test_a_checkpoint_that_can_t_be_written_leaves_the_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = load_policy(CHECKPOINT, CPU)
    folder = tmp_path / "checkpoint"
    write_checkpoint(model, CHECKPOINT, folder, dtype=torch.float32)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ConfigurationError, match=r"checkpoint cannot be written: .*No space left"):
        write_checkpoint(model, CHECKPOINT, folder, dtype=torch.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("limit", [20_000, 27_919, 35_838, 500_000])
def test_a_state_that_the_disk_has_no_room_for_leaves_the_one_that_is_there(tmp_path: Path, limit: int) -> None:
    save_state(tmp_path, {"step": 1})
    # Where a large tensor is cut off, torch speaks of its archive's end and not of the disk.
    state = {"step": 2, "weights": {str(number): torch.rand(64 << 2 * (number % 5)) for number in range(40)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # A write beyond it fails as on a full disk.
    try:
        with pytest.raises(ConfigurationError, match=r"state\.pt cannot be written: File too large"):
            save_state(tmp_path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    loaded = load_state(tmp_path, {}, CPU)
    assert loaded is not None
    assert loaded["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_state_is_resumed_by_its_own_run_alone(tmp_path: Path) -> None:
    assert load_state(tmp_path, {"seed": 1}, CPU) is None
    state = {"identity": {"seed": 1, "lr": 0.5}, "step": 7, "weights": torch.arange(3)}
    save_state(tmp_path, state)
    loaded = load_state(tmp_path, {"seed": 1, "lr": 0.5}, CPU)
    assert loaded is not None
    assert loaded["step"] == 7
    assert torch.equal(loaded["weights"], torch.arange(3))
    with pytest.raises(ConfigurationError, match=r"other settings \(lr, model\)"):
        load_state(tmp_path, {"seed": 1, "lr": 0.1, "model": "x"}, CPU)


@pytest.mark.parametrize("key", ["identity", "config"])
def test_a_state_of_either_version_says_of_which_run_it_is(key: str, tmp_path: Path) -> None:
    save_state(tmp_path, {key: {"seed": 1, "lr": 0.5}, "step": 7})
    loaded = load_state(tmp_path, {"seed": 1, "lr": 0.5}, CPU)
    assert loaded is not None
    assert loaded["step"] == 7
    with pytest.raises(ConfigurationError, match=r"other settings \(lr\)"):
        load_state(tmp_path, {"seed": 1, "lr": 0.1}, CPU)


@pytest.mark.parametrize("name", ["runs/weak/checkpoint", "./weak", "/nowhere"])
def test_a_folder_that_is_not_there_is_not_looked_for_at_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(ConfigurationError, match=r"no such folder\. `searchr1 train warmup`"):
        find_model(name)
