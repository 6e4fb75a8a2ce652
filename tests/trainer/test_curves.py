"""Pictures of runs: drawn from what there is, whole or not at all; and the table over seeds."""

import json
from pathlib import Path

import pytest

from searchr1.trainer.curves import plot_run, plot_runs, read_run, summarize_runs

PNG = b"\x89PNG"


def records(gain: float, num: int = 5) -> list[dict[str, float | None]]:
    made: list[dict[str, float | None]] = [
        {"step": 0, "eval_em": 0.2, "eval_em_1": 0.5, "eval_em_2": 0.1, "eval_em_3": 0.0, "eval_searches": 1.0}
    ]
    made += [
        {"step": step, "reward_mean": 0.2 + gain * step / num, "em": 0.3, "searches": 1.0 + step / 4, "kl": None}
        | {"rollout_s": 2.0, "reward_s": 0.1, "update_s": 3.0, "sync_s": 0.2, "entropy": 0.1}
        for step in range(1, num)
    ]
    made[-1] |= {"eval_em": 0.2 + gain, "eval_em_1": 0.8, "eval_em_2": 0.7, "eval_em_3": 0.4, "eval_searches": 1.9}
    return made


def run(folder: Path, gain: float) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in records(gain))
    (folder / "metrics.jsonl").write_text(lines + '{"step": 9, "rew', "utf-8")
    return folder


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    assert read_run(run(tmp_path / "a", 0.5)) == records(0.5)


def test_one_run_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    plot_run(records(0.5), path)
    assert path.read_bytes().startswith(PNG)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("made", [[], [{"step": 0.0}]])
def test_a_run_without_metrics_draws_nothing(tmp_path: Path, made: list[dict[str, float | None]]) -> None:
    plot_run(made, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_run_with_only_its_first_evaluation_is_drawn(tmp_path: Path) -> None:
    plot_run(records(0.5)[:1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_runs_are_drawn_and_summed_up_by_label(tmp_path: Path) -> None:
    groups = {"GRPO": [run(tmp_path / "a", 0.5), run(tmp_path / "b", 0.4)], "PPO": [run(tmp_path / "c", 0.3)]}
    plot_runs(groups, tmp_path / "runs.png")
    assert (tmp_path / "runs.png").read_bytes().startswith(PNG)
    _, _, grpo, ppo = summarize_runs(groups).splitlines()
    assert grpo.startswith("| GRPO | 2 | 0.200 | 0.650 | +0.450 ± 0.071 | 0.500 → 0.800 |")
    assert ppo.startswith("| PPO | 1 | 0.200 | 0.500 | +0.300 |")
    assert ppo.endswith("| 1.000 → 1.900 |")
