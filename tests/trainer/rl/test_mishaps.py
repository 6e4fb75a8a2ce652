"""Whole runs in trouble: gradients that are no numbers, a full disk, kills at any moment. Nothing is lost."""

import random
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.rl.tiny_run import TORCHRUN, command, finish, records, start, write_tiny_run

pytestmark = pytest.mark.timeout(900)

NUM_STEPS = 5
LIMITED = (
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); sys.argv[:] = sys.argv[1:]"
)
"""Python that can write no file of more than so many bytes, as on a disk that is full."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_run(tmp_path_factory.mktemp("mishaps"))


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """The folder of a run that nothing disturbed; its best evaluation is the first, after step 2: it never answers."""
    out_dir, log = config.with_name("undisturbed"), config.with_name("undisturbed.log")
    assert finish(command(config, out_dir, "keep_checkpoints=1"), log) == 0, log.read_text()
    return out_dir


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_finite(folder: Path) -> None:
    tensors = weights(folder)
    assert tensors
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert all(second[name].equal(tensor) for name, tensor in first.items())


def checkpoints(out_dir: Path) -> list[str]:
    return sorted(path.name for path in out_dir.glob("checkpoint*"))


def test_the_last_and_the_best_checkpoint_stay(undisturbed: Path) -> None:
    assert checkpoints(undisturbed) == ["checkpoint", "checkpoint-000002", "checkpoint-000005", "checkpoint-best"]
    assert (undisturbed / "checkpoint").readlink() == Path("checkpoint-000005")
    assert (undisturbed / "checkpoint-best").readlink() == Path("checkpoint-000002")


@pytest.mark.parametrize("processes", [(), TORCHRUN], ids=["one process", "two processes"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(config: Path, processes: tuple[str, ...]) -> None:
    out_dir = config.with_name(f"skipping-{len(processes)}")
    log = out_dir.with_suffix(".log")
    arguments = command(config, out_dir, "reward=tests.trainer.rl.poisoned:second_step", "keep_checkpoints=5")
    assert finish([*processes, *arguments], log) == 0, log.read_text()
    lines = records(out_dir)
    assert [line.get("skipped_updates") for line in lines] == [None, 0, 2, 0, 0, 0]
    assert lines[2]["grad_norm"] is None
    assert lines[2]["critic_grad_norm"] > 0
    for step in range(1, NUM_STEPS + 1):
        assert_finite(out_dir / f"checkpoint-{step:06d}")
    assert_same(out_dir / "checkpoint-000001", out_dir / "checkpoint-000002")
    assert not weights(out_dir / "checkpoint-000002")["lm_head.weight"].equal(
        weights(out_dir / "checkpoint-000003")["lm_head.weight"]
    )
    state = torch.load(out_dir / "state.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["policy"].values())


@pytest.mark.parametrize("processes", [(), TORCHRUN], ids=["one process", "two processes"])
def test_too_many_of_them_end_the_run_with_its_last_save_as_it_was(config: Path, processes: tuple[str, ...]) -> None:
    out_dir = config.with_name(f"hopeless-{len(processes)}")
    log = out_dir.with_suffix(".log")
    settings = ("reward=tests.trainer.rl.poisoned:from_the_second_step_on", "max_skipped_updates=3")
    assert finish([*processes, *command(config, out_dir, *settings)], log) != 0
    assert "4 optimizer steps in a row had a loss or a gradient that is not finite" in log.read_text()
    assert [line.get("skipped_updates") for line in records(out_dir)] == [None, 0, 2, 2]
    state = torch.load(out_dir / "state.pt", weights_only=True)
    assert (state["step"], state["skipped_in_a_row"]) == (2, 2)
    assert_finite(out_dir / "checkpoint")
    assert (out_dir / "checkpoint").readlink() == Path("checkpoint-000002")


def test_a_full_disk_ends_the_run_in_a_line_and_costs_nothing(config: Path, undisturbed: Path) -> None:
    out_dir, log = config.with_name("full"), config.with_name("full.log")
    arguments = command(config, out_dir, "keep_checkpoints=1")
    interrupt_after(2, arguments, out_dir, log)
    before = (out_dir / "state.pt").read_bytes()
    for limit in (100_000, 2_000_000):  # Too little for the weights on their way to the engine; for the state alone.
        assert len(before) > limit
        said = config.with_name(f"full-{limit}.log")
        assert finish(limited(arguments, limit), said) == 2, said.read_text()
        [line] = [line for line in said.read_text().splitlines() if "cannot be written" in line]
        assert "File too large" in line
        assert "Traceback" not in said.read_text()
        assert (out_dir / "state.pt").read_bytes() == before
        assert_finite(out_dir / "checkpoint")
    assert finish(arguments, log) == 0, log.read_text()
    assert records(out_dir) == records(undisturbed)
    assert_same(undisturbed / "checkpoint", out_dir / "checkpoint")


def test_kills_at_any_moment_lose_nothing(config: Path, undisturbed: Path) -> None:
    out_dir, log = config.with_name("killed-often"), config.with_name("killed-often.log")
    arguments = command(config, out_dir, "keep_checkpoints=1")
    seed = time.time_ns()
    chance = random.Random(seed)
    sys.stdout.write(f"kills of seed {seed}\n")
    for _ in range(3):
        interrupt_after(len(records(out_dir)), arguments, out_dir, log, then_s=chance.uniform(0, 0.6))
        if (out_dir / "state.pt").is_file():
            torch.load(out_dir / "state.pt", weights_only=True)
        for name in ("checkpoint", "checkpoint-best"):
            if (out_dir / name).is_symlink():
                assert_finite(out_dir / name)
    assert finish(arguments, log) == 0, log.read_text()
    assert records(out_dir) == records(undisturbed)
    assert checkpoints(out_dir) == checkpoints(undisturbed)
    assert_same(undisturbed / "checkpoint", out_dir / "checkpoint")
    assert_same(undisturbed / "checkpoint-best", out_dir / "checkpoint-best")


def limited(arguments: list[str], num_bytes: int) -> list[str]:
    """Return arguments for Python that run the module of ``arguments`` and let no file have more than ``num_bytes``."""
    code = f"{LIMITED.format(num_bytes)}; runpy.run_module({arguments[1]!r}, run_name='__main__', alter_sys=True)"
    return ["-c", code, *arguments[1:]]


def interrupt_after(num_records: int, arguments: list[str], out_dir: Path, log: Path, *, then_s: float = 0.0) -> None:
    """Start a run and kill it ``then_s`` seconds after it has more than ``num_records`` lines of metrics."""
    process = start(arguments, log)
    try:
        while len(records(out_dir)) <= num_records and process.poll() is None:
            time.sleep(0.02)
        time.sleep(then_s)
    finally:
        process.kill()
        process.wait()
