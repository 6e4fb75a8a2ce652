import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError
from searchr1.trainer.warmup import train as module
from searchr1.trainer.warmup.batches import BatchPlan
from searchr1.trainer.warmup.config import WarmupConfig
from searchr1.trainer.warmup.train import warmup


class StoppedError(Exception):
    pass


def test_a_run_leaves_a_servable_folder_and_its_records(tiny_config: WarmupConfig) -> None:
    warmup(tiny_config)

    out = tiny_config.out_dir
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4]
    assert "validation_loss" in records[-1]
    assert "drill_loss" in records[0]
    assert "drill_loss" not in records[-1]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in (out / "checkpoint").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    model = Qwen2ForCausalLM.from_pretrained(out / "checkpoint")
    assert model.config.tie_word_embeddings
    assert model.config.eos_token_id == 2
    assert model.dtype == torch.bfloat16


def test_the_command_says_at_its_end_where_the_checkpoint_is_and_how_to_serve_it(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quickly(config: WarmupConfig) -> None:
        warmup(dataclasses.replace(config, num_validation_samples=2, progress=False))

    monkeypatch.setattr(module, "warmup", quickly)
    out, data = tmp_path / "run", tmp_path / "atlas"
    data.symlink_to(data_dir)
    options = "--max-steps 1 --hidden-size 256 --num-layers 3 --processes 1 --batch-size 2 --drill-size 1"
    done = CliRunner().invoke(app, ["train", "warmup", "--data", str(data), "--out", str(out), *options.split()])
    assert done.exit_code == 0, done.output
    serve = f"searchr1 serve --model {out / 'checkpoint'} --demo --data-dir {tmp_path}"
    assert done.stdout.splitlines()[-1] == f"1 steps done. Serve the checkpoint with: {serve}"
    assert (out / "checkpoint" / "model.safetensors").is_file()


def test_resuming_gives_the_same_weights_as_never_stopping(
    tiny_config: WarmupConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    warmup(tiny_config)

    stopped = dataclasses.replace(tiny_config, out_dir=tmp_path / "stopped")
    train_step = module._Run.train_step
    steps = iter(range(3))

    def stop_in_fourth(run: module._Run, *plans: BatchPlan | None) -> dict[str, float]:
        if next(steps, None) is None:
            raise StoppedError
        return train_step(run, *plans)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "train_step", stop_in_fourth)
        with pytest.raises(StoppedError):
            warmup(stopped)
    warmup(stopped)

    whole, resumed = (torch.load(config.out_dir / "state.pt", weights_only=True) for config in (tiny_config, stopped))
    assert resumed["step"] == whole["step"] == 4
    assert resumed["tokens"] == whole["tokens"]
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name
    assert len((stopped.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()) == 4


def test_a_run_whose_time_ends_in_a_validation_is_saved_whole(
    tiny_config: WarmupConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(run: module._Run, _: BatchPlan) -> dict[str, float]:
        run.elapsed_s += 3600.0
        return {}

    monkeypatch.setattr(module._Run, "validate", validate)
    config = dataclasses.replace(
        tiny_config, max_steps=None, max_minutes=59.0, validate_every_steps=3, save_every_steps=2
    )
    warmup(config)

    state = torch.load(config.out_dir / "state.pt", weights_only=True)
    assert state["step"] == len((config.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()) == 3


def test_two_processes_learn_the_same_as_one(tiny_config: WarmupConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, max_steps=2, drill=0.0)
    warmup(config)
    pair = dataclasses.replace(config, out_dir=tmp_path / "pair", num_processes=2)
    warmup(pair)
    one, two = (load_file(c.out_dir / "checkpoint" / "model.safetensors") for c in (config, pair))
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), two[name].float(), atol=0.02), name


def test_other_settings_do_not_resume(tiny_config: WarmupConfig) -> None:
    warmup(dataclasses.replace(tiny_config, max_steps=1))
    with pytest.raises(ConfigurationError, match="another out_dir"):
        warmup(dataclasses.replace(tiny_config, max_steps=1, muon_lr=0.5))


def test_a_run_needs_a_bound(tiny_config: WarmupConfig) -> None:
    with pytest.raises(ConfigurationError, match="max_steps or max_minutes"):
        warmup(dataclasses.replace(tiny_config, max_steps=None))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch looks at it while it traces
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_compiled_layers_learn_what_others_do(tiny_config: WarmupConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, max_steps=2, drill=0.0)
    warmup(config)
    compiled = dataclasses.replace(config, compile=True, out_dir=tmp_path / "compiled")
    warmup(compiled)

    plain, fast = (
        [json.loads(line)["loss"] for line in (c.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
        for c in (config, compiled)
    )
    assert fast == pytest.approx(plain, rel=0.01)
    names = [set(load_file(c.out_dir / "checkpoint" / "model.safetensors")) for c in (config, compiled)]
    assert names[0] == names[1]
