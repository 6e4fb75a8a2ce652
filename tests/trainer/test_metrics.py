"""The metrics of a run on disk: whole, once each, also after a kill."""

import json
import logging
from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.trainer.metrics import FILE, FOLDER, MetricLog, read_metrics


def fresh(folder: Path, step: int = -1, *, tensorboard: bool = False) -> MetricLog:
    log = MetricLog(folder, tensorboard=tensorboard)
    log.rewind(step)
    return log


def lines(folder: Path) -> list[dict[str, float | None]]:
    return [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]


def test_each_step_is_a_line_at_once(tmp_path: Path) -> None:
    log = fresh(tmp_path)
    log.log(0, {"step": 0, "eval_em": 0.25})
    log.log(1, {"step": 1, "reward_mean": 0.5})
    assert lines(tmp_path) == [{"step": 0.0, "eval_em": 0.25}, {"step": 1.0, "reward_mean": 0.5}] == log.records()


def test_rewinding_drops_later_steps_and_a_line_that_was_cut_off(tmp_path: Path) -> None:
    log = fresh(tmp_path)
    for step in range(5):
        log.log(step, {"step": step})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"step": 5, "rew')
    again = fresh(tmp_path, 3)
    again.log(4, {"step": 4, "em": 1.0})
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4]
    assert again.records()[-1] == {"step": 4.0, "em": 1.0}


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    fresh(tmp_path).log(0, {"step": 0})
    fresh(tmp_path)
    assert lines(tmp_path) == []


def test_a_log_that_was_not_rewound_makes_its_folder_and_goes_on_from_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    MetricLog(folder, tensorboard=False).log(0, {"em": 0.5})
    assert lines(folder) == [{"em": 0.5, "step": 0.0}]
    with (folder / FILE).open("a") as file:
        file.write('{"step": 1, "em": 0.6}\n{"step": 2, "em": 0.7}\n{"st')
    MetricLog(folder, tensorboard=False).log(2, {"em": 0.8})
    assert [(line["step"], line["em"]) for line in lines(folder)] == [(0, 0.5), (1, 0.6), (2, 0.8)]


def test_a_log_that_only_exists_writes_nothing(tmp_path: Path) -> None:
    MetricLog(tmp_path / "run").close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ['{"step": 1, "rew', "[1]", '{"loss": 2.5}', '{"step": null}'])
def test_a_whole_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE).write_text('{"step": 0}\n' + line + "\n", "utf-8")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not"):
        read_metrics(tmp_path / FILE)


def test_what_is_not_finite_is_null_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fresh(tmp_path).log(3, {"step": 3, "kl": float("nan"), "loss": float("inf"), "em": 0.5})
    assert lines(tmp_path) == [{"step": 3.0, "kl": None, "loss": None, "em": 0.5}]
    assert "step 3: not finite: kl, loss" in caplog.text


def test_a_file_that_can_t_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fresh(tmp_path)

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match=r"metrics\.jsonl cannot be written: No space left on device"):
        log.log(1, {"em": 0.5})


def test_tensorboard_reads_the_same_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
    from tensorboard.summary.writer import event_file_writer  # type: ignore[import-untyped]

    # Files of one second are read in the order of a number that the process counts, as text: 9 comes after 10.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    log = fresh(tmp_path, tensorboard=True)
    for step in range(4):
        log.log(step, {"step": step, "em": step / 4})
    resumed = fresh(tmp_path, 1, tensorboard=True)
    resumed.log(2, {"step": 2, "em": 0.9})
    resumed.close()
    events = EventAccumulator(str(tmp_path / FOLDER))
    events.Reload()
    assert events.Tags()["scalars"] == ["em"]
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("em")] == [(0, 0.0), (1, 0.25), (2, 0.9)]


def test_it_works_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO):
        log = fresh(tmp_path, tensorboard=True)
        log.rewind(-1)
        log.log(0, {"step": 0})
    assert caplog.text.count("tensorboard is not installed") == 1
    assert lines(tmp_path) == [{"step": 0.0}]
