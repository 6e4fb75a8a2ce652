"""Pictures of runs: drawn from what there is, whole or not at all; and the table over seeds."""

import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from searchr1.data.sets import SETS, TITLES
from searchr1.trainer import curves
from searchr1.trainer.curves import Record, plot_run, plot_runs, read_run, summarize_runs

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


def write(folder: Path, made: list[dict[str, float | None]]) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in made)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 9, "rew', "utf-8")
    return folder


def run(folder: Path, gain: float) -> Path:
    return write(folder, records(gain))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of what is drawn, by title; filled as it is saved."""
    axes: dict[str, Any] = {}
    save = curves._save

    def saved(figure: Any, path: Path) -> None:
        axes.update({axis.get_title(): axis for axis in figure.axes if axis.get_visible()})
        save(figure, path)

    monkeypatch.setattr(curves, "_save", saved)
    return axes


def values(axis: Any, number: int = 0) -> list[float]:
    return [float(value) for value in axis.get_lines()[number].get_ydata()]


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


def test_sets_have_a_panel_with_a_line_each_that_can_be_told_apart(drawn: dict[str, Any], tmp_path: Path) -> None:
    made = records(0.5)
    made[0] |= {f"eval_em_{name}": 0.1 for name in (*SETS, "sets")}
    plot_run(made, tmp_path / "curves.png")
    lines = drawn["Exact match by set, held out"].get_lines()
    assert [line.get_label() for line in lines] == ["mean of sets", *TITLES.values()]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines)


def test_only_panels_with_values_are_drawn_and_hops_have_their_own(drawn: dict[str, Any], tmp_path: Path) -> None:
    plot_run(records(0.5), tmp_path / "curves.png")
    assert list(drawn) == [
        "Reward",
        "Exact match",
        "Exact match by hops, held out",
        "Searches",
        "Entropy",
        "Where a step's time goes",
    ]
    assert values(drawn["Exact match"], 1) == pytest.approx([0.2, 0.7])
    assert [values(drawn["Exact match by hops, held out"], n) for n in range(3)] == [[0.5, 0.8], [0.1, 0.7], [0, 0.4]]
    assert all(axis.get_xlim()[0] < 0 and axis.get_xlim()[1] > 4 for axis in drawn.values())


def test_a_value_that_was_not_finite_breaks_the_line(drawn: dict[str, Any], tmp_path: Path) -> None:
    made: list[Record] = [{"step": float(step), "kl": None if step == 2 else step / 10} for step in range(1, 5)]
    plot_run(made, tmp_path / "curves.png")
    np.testing.assert_allclose(values(drawn["KL to the start policy"]), [0.1, np.nan, 0.3, 0.4])


def test_times_are_shares_that_fill_the_whole(drawn: dict[str, Any], tmp_path: Path) -> None:
    made: list[Record] = [
        {"step": 1.0, "rollout_s": 2.0, "update_s": 7.0, "sync_s": 1.0, "reward_s": 0.0},
        {"step": 2.0, "rollout_s": 10.0, "update_s": 10.0, "sync_s": 0.0, "reward_s": 0.0},
        {"step": 3.0, "rollout_s": None},
    ]
    plot_run(made, tmp_path / "curves.png")
    axis = drawn["Where a step's time goes"]
    tops = [part.get_paths()[0].vertices[:, 1].max() for part in axis.collections]
    assert tops[0] == pytest.approx(70)
    assert tops[-1] == pytest.approx(100)
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["reward, 0 %", "weights to engine, 3 %", "rollout, 40 %", "update, 57 %"]


def test_a_panel_of_zeros_starts_at_zero(drawn: dict[str, Any], tmp_path: Path) -> None:
    plot_run([{"step": float(step), "clip_fraction": 0.0} for step in (1, 2)], tmp_path / "curves.png")
    assert drawn["Clipped"].get_ylim() == (0, 1)


def test_a_picture_that_fails_leaves_the_last_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    def fail(_: Figure, part: BinaryIO, **options: Any) -> None:
        part.write(b"half")
        raise OSError("disk full")

    path = tmp_path / "curves.png"
    plot_run(records(0.5), path)
    before = path.read_bytes()
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plot_run(records(0.1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_runs_have_their_mean_their_range_and_a_thin_line_each(drawn: dict[str, Any], tmp_path: Path) -> None:
    long = write(tmp_path / "a", [{"step": step, "searches": value} for step, value in ((1, 1.0), (2, 2.0), (3, 3.0))])
    short = write(tmp_path / "b", [{"step": step, "searches": value} for step, value in ((1, 2.0), (2, 4.0))])
    plot_runs({"GRPO": [long, short]}, tmp_path / "runs.png")
    assert list(drawn) == ["Searches, training rollouts"]
    axis = drawn["Searches, training rollouts"]
    assert [values(axis, n) for n in range(3)] == [[1, 2, 3], [2, 4], [1.5, 3]]
    band = axis.collections[0].get_paths()[0].vertices
    assert sorted({(float(x), float(y)) for x, y in band}) == [(1, 1), (1, 2), (2, 2), (2, 4)]
    assert axis.get_ylabel() == "searches per rollout"


def test_runs_without_what_is_asked_for_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GRPO: no values of kl to draw"):
        plot_runs({"GRPO": [run(tmp_path / "a", 0.5)]}, tmp_path / "runs.png", metrics=[("kl", "KL")])
    assert not (tmp_path / "runs.png").exists()


def test_runs_are_drawn_and_summed_up_by_label(tmp_path: Path) -> None:
    groups = {"GRPO": [run(tmp_path / "a", 0.5), run(tmp_path / "b", 0.4)], "PPO": [run(tmp_path / "c", 0.3)]}
    plot_runs(groups, tmp_path / "runs.png")
    assert (tmp_path / "runs.png").read_bytes().startswith(PNG)
    _, _, grpo, ppo = summarize_runs(groups).splitlines()
    assert grpo.startswith("| GRPO | 2 | 4 | 0.200 | 0.650 | 0.650 | +0.450 ± 0.071 | 0.500 → 0.800 |")
    assert ppo.startswith("| PPO | 1 | 4 | 0.200 | 0.500 | 0.500 | +0.300 |")
    assert ppo.endswith("| 1.000 → 1.900 |")


def test_the_table_tells_a_loss_and_what_is_missing(tmp_path: Path) -> None:
    worse = write(
        tmp_path / "a",
        [{"step": 0, "eval_em": 0.5}, {"step": 4, "eval_em": 0.75}, {"step": 8, "eval_em": 0.25, "eval_em_1": 0.5}],
    )
    other = write(tmp_path / "b", [{"step": 0, "eval_em": 0.5}, {"step": 4, "eval_em": 0.25}])
    unscored = write(tmp_path / "c", [{"step": 1, "em": 0.5}])
    startless = write(tmp_path / "d", [{"step": 4, "eval_em": 0.5}])
    groups = {"A|B": [worse, other, unscored], "C": [unscored], "D": [startless]}
    header, rule, *rows = summarize_runs(groups).splitlines()
    assert header.count("|") == rule.count("|") == 12
    assert rows == [
        "| A\\|B | 2 of 3 | 4–8 | 0.500 | 0.250 | 0.625 | -0.250 ± 0.000 | – → 0.500 | – → – | – → – | – → – |",
        "| C | 0 of 1 | – | – | – | – | – | – → – | – → – | – → – | – → – |",
        "| D | 1 | 4 | – | 0.500 | 0.500 | – | – → – | – → – | – → – | – → – |",
    ]
