"""``loadtests.gpu``: everything of it in small on a CPU, and what it says where there is no GPU."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loadtests.gpu import timing
from loadtests.gpu.machine import Machine, machine_here
from loadtests.gpu.shapes import SHAPES
from loadtests.gpu.timing import Timing, time_shape
from loadtests.gpu.training import REHEARSED, run_training
from tests.support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.process]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("start") / "tiny-model")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


def test_a_rehearsal_trains_and_times_and_writes(model: Path, tmp_path: Path) -> None:
    done = run("--model", str(model), "--out", str(tmp_path), "--rehearse")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    trained, [timed] = result["training"], result["timings"]
    assert [step["step"] for step in trained["steps"]] == [1, 2]
    assert all(0 < step["reward"] <= 1 and step["grad_norm"] > 0 for step in trained["steps"])
    assert 0 < trained["moved"] <= 1
    assert timed["left_out"] is None
    assert timed["rollout_tokens_per_s"] > 0
    assert timed["update_tokens_per_s"] > 0
    assert timed["update_peak_gib"] is None, "there is no GPU whose peak it could be"
    text = (tmp_path / "gpu.md").read_text("utf-8")
    assert result["machine"]["host"] in text
    assert "a rehearsal in small on a CPU" in text
    assert "| tiny |" in text


def test_a_folder_without_weights_stands_for_random_ones(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    here = machine_here(rehearse=True)
    trained = run_training(bare, tmp_path, here, replace(REHEARSED, num_steps=1))
    assert not trained.is_pretrained
    assert len(trained.steps) == 1
    assert trained.num_parameters > 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(model: Path, tmp_path: Path) -> None:
    done = run("--model", str(model), "--out", str(tmp_path))
    assert done.returncode == 1
    assert "finds no GPU" in done.stderr
    assert "--rehearse" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run("--model", str(tmp_path / "none"), "--out", str(tmp_path), "--rehearse")
    assert done.returncode == 1
    assert "none" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_time_does_not_allow_is_left_out_and_named(model: Path, tmp_path: Path) -> None:
    here = Machine("here", "a GPU", 80.0, torch.__version__, "13.0")
    timed = time_shape(SHAPES[-1], model, tmp_path / "3B", here, timing.WORK, lambda: 5.0)
    assert timed == Timing("3B", left_out="5 s were left, and it takes 120 s")
    assert not (tmp_path / "3B").exists()


def test_every_group_of_the_timed_update_has_a_gradient() -> None:
    samples = timing.timed_samples(timing.WORK)
    for group in range(timing.WORK.num_groups):
        assert {sample.reward for sample in samples if sample.group == group} == {0.0, 1.0}
    assert {len(sample.ids) for sample in samples} == {256 + 64 + 450 + 64}
    assert {sample.num_sampled_tokens for sample in samples} == {128}
