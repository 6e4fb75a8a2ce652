"""Rollouts without training, as users start them: all are kept, and none is sampled twice."""

import json
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.config import load_config
from searchr1.trainer.rl.sampling import sample
from tests.trainer.rl.tiny_run import ROLLOUTS_PER_STEP, finish, write_tiny_run

pytestmark = pytest.mark.timeout(600)


def test_all_steps_are_sampled_once(tmp_path: Path) -> None:
    file, out_dir = write_tiny_run(tmp_path), tmp_path / "sampled"
    arguments = ["-m", "searchr1.cli", "train", "sample", str(file), "--no-progress", "--set", f"out_dir={out_dir}"]
    log = tmp_path / "log"
    assert finish([*arguments, "--set", "num_steps=1"], log) == 0, log.read_text()
    first = (out_dir / "rollouts" / "step-000001.jsonl").read_bytes()
    assert finish([*arguments, "--set", "num_steps=2"], log) == 0, log.read_text()
    assert [path.name for path in sorted((out_dir / "rollouts").iterdir())] == [
        "step-000001.jsonl",
        "step-000002.jsonl",
    ]
    assert (out_dir / "rollouts" / "step-000001.jsonl").read_bytes() == first
    lines = [json.loads(line) for line in first.splitlines()]
    assert len(lines) == ROLLOUTS_PER_STEP
    assert len({line["question_id"] for line in lines}) == load_config(file).rollout.questions_per_step
    assert all(line["golden_answers"] == ["Mali"] and line["reward"] > 0 for line in lines)
    assert {line["trajectory"]["policy_version"] for line in lines} == {"0"}
    said = [line for line in log.read_text().splitlines() if "rollouts of" in line]
    assert [line.partition(": ")[2] for line in said] == ["4 rollouts of 1 steps, 0.0% right"] * 2
    assert finish([*arguments, "--set", "num_steps=2", "--set", "seed=1"], log) == 2
    assert "holds rollouts of other settings (seed); use another out_dir" in log.read_text()
    training = ["-m", "searchr1.cli", "train", str(file), "--no-progress", "--set", f"out_dir={out_dir}"]
    assert finish(training, log) == 2
    assert "holds rollouts of searchr1 train sample; use another out_dir" in log.read_text()
    assert (out_dir / "rollouts" / "step-000001.jsonl").read_bytes() == first


@pytest.mark.parametrize("left", ["metrics.jsonl", "rollouts/step-000001.jsonl"])
async def test_what_a_training_run_left_before_its_first_save_is_not_taken_for_samples(
    left: str, tmp_path: Path
) -> None:
    config = load_config(write_tiny_run(tmp_path))
    path = config.out_dir / left
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ConfigurationError, match="holds a training run; use another out_dir"):
        await sample(config, progress=False)
