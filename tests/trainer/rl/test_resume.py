"""Whole runs as users start them: one that is killed and started again, and one with two processes."""

import random
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from searchr1.trainer.rl.config import load_config
from searchr1.trainer.rl.train import train
from tests.trainer.rl.tiny_run import TORCHRUN, TRAIN, command, finish, records, start, write_tiny_run

pytestmark = pytest.mark.timeout(900)

NUM_STEPS = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("tiny-run"))


@pytest.fixture(scope="module")
def uninterrupted(config: Path) -> Path:
    """The folder of a run with one process that nothing disturbed."""
    log = config.with_name("uninterrupted.log")
    assert finish([*TRAIN, str(config), "--no-progress"], log) == 0, log.read_text()
    return config.with_name("run")


def test_the_run_is_no_trivial_one(uninterrupted: Path) -> None:
    lines = records(uninterrupted)
    assert [line["step"] for line in lines] == [0, *range(1, NUM_STEPS + 1)]
    assert len({line["reward_mean"] for line in lines[1:]}) > 1
    assert all(line["grad_norm"] > 0 and line["critic_grad_norm"] > 0 for line in lines[1:])
    assert lines[-1]["kl"] > 0
    # The engine has the trainer's weights, after every update.
    assert all(line["gap_max_abs"] < 1e-3 for line in lines[1:])


def test_killed_at_any_step_it_goes_on_as_if_nothing_had_happened(config: Path, uninterrupted: Path) -> None:
    out_dir, log = config.with_name("killed"), config.with_name("killed.log")
    seed = time.time_ns()
    step = random.Random(seed).randint(2, NUM_STEPS - 1)
    sys.stdout.write(f"killed at step {step}, of seed {seed}\n")
    process = start(command(config, out_dir), log)
    try:
        while len(records(out_dir)) <= step and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert (out_dir / "state.pt").is_file()
    # Whatever the kill left behind, a line that was being written is the worst of it.
    with (out_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "rew')
    assert finish(command(config, out_dir), log) == 0, log.read_text()
    assert records(out_dir) == records(uninterrupted)
    one, two = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (uninterrupted, out_dir))
    assert all(two[name].equal(tensor) for name, tensor in one.items())


async def test_a_finished_run_starts_no_engine(
    config: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("searchr1.trainer.rl.train.open_actor", None)  # Whoever opens one fails.
    before, state = records(uninterrupted), (uninterrupted / "state.pt").stat().st_mtime_ns
    await train(load_config(config, {}), progress=False)
    assert records(uninterrupted) == before
    assert (uninterrupted / "state.pt").stat().st_mtime_ns == state


def test_two_processes_run_as_one_does(config: Path, uninterrupted: Path) -> None:
    out_dir, log = config.with_name("two"), config.with_name("two.log")
    assert finish([*TORCHRUN, *command(config, out_dir)], log) == 0, log.read_text()
    lines = records(out_dir)
    assert len(lines) == NUM_STEPS + 1
    for line, wanted in zip(lines, records(uninterrupted), strict=True):
        assert line.keys() == wanted.keys()
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=5e-3, abs=1e-4), (line["step"], name)


def test_each_of_two_processes_may_sample_its_share(config: Path) -> None:
    out_dir, log = config.with_name("each"), config.with_name("each.log")
    # Of three questions one falls to the first process, and two to the other.
    settings = ("rollout.engines=each", "rollout.questions_per_step=3", "num_steps=2", "eval_every_steps=1")
    alone, alone_log = config.with_name("three"), config.with_name("three.log")
    assert finish([*TORCHRUN, *command(config, out_dir, *settings)], log) == 0, log.read_text()
    assert finish(command(config, alone, *settings[1:]), alone_log) == 0, alone_log.read_text()
    lines, wanted = records(out_dir), records(alone)
    assert len(lines) == len(wanted) == 3
    # The same samples by the same weights, and after an update of two processes nearly so.
    sampled = ("reward_mean", "sampled_tokens", "trajectory_tokens", "searches", "num_rollouts")
    assert {name: lines[1][name] for name in sampled} == {name: wanted[1][name] for name in sampled}
    for line, other in zip(lines, wanted, strict=True):
        assert line.keys() == other.keys()
        for name, value in other.items():
            assert line[name] == pytest.approx(value, rel=5e-3, abs=1e-4), (line["step"], name)
    assert all(line["gap_max_abs"] < 1e-3 for line in lines[1:])


def test_the_others_end_when_the_first_process_fails(config: Path) -> None:
    log = config.with_name("failed.log")
    arguments = command(config, config.with_name("failed"), "data=/nowhere/questions.jsonl")
    assert finish([*TORCHRUN, *arguments], log) != 0
    assert "/nowhere/questions.jsonl" in log.read_text()
