"""The studies' runner on short programs: what is done stays, what failed or was cut off is tried again."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from loadtests.studies import running
from loadtests.studies.commands import Choices
from loadtests.studies.plan import Arm, Run
from loadtests.studies.running import read_done, run_all

pytestmark = pytest.mark.process

RUNS = [Run("atlas", "weak", seed, Arm("GRPO")) for seed in range(3)]


def programs(monkeypatch: pytest.MonkeyPatch, *sources: str) -> None:
    """Let every run be programs that know its folder."""

    def commands(run: Run, choices: Choices) -> Sequence[Sequence[str]]:
        return [[sys.executable, "-c", source, str(run.folder(choices.out))] for source in sources]

    monkeypatch.setattr(running, "commands_of", commands)


COUNT = (
    "import sys, pathlib; p = pathlib.Path(sys.argv[1]) / 'times'; "
    "p.write_text((p.read_text() if p.exists() else '') + 'x')"
)


def times(out: Path) -> list[str]:
    return [(run.folder(out) / "times").read_text() for run in RUNS]


async def test_what_is_done_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch, COUNT)
    choices = Choices(out=tmp_path)
    assert await run_all(RUNS[:2], choices, progress=False) == []
    assert await run_all(RUNS, choices, at_once=2, progress=False) == []
    assert times(tmp_path) == ["x", "x", "x"]
    done = read_done(RUNS[0].folder(tmp_path))
    assert done is not None
    assert done.ended >= done.began
    assert done.command.startswith("python -c ")
    assert sys.executable not in done.command
    assert (RUNS[0].folder(tmp_path) / "log").read_text().startswith("$ ")


async def test_a_run_that_failed_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch, COUNT + "; sys.exit(3 if sys.argv[1].endswith('seed1') and p.read_text() == 'x' else 0)")
    told: list[str] = []
    failed = await run_all(RUNS, Choices(out=tmp_path), progress=False, tell=told.append)
    assert failed == [RUNS[1]]
    assert told == [f"atlas-weak-grpo-seed1 ended with 3: see {RUNS[1].folder(tmp_path) / 'log'}"]
    assert await run_all(RUNS, Choices(out=tmp_path), progress=False) == []
    assert times(tmp_path) == ["x", "xx", "x"]


async def test_commands_follow_each_other_until_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch, COUNT, COUNT + "; sys.exit(4 if p.read_text() == 'xx' else 0)", COUNT)
    choices = Choices(out=tmp_path)
    assert await run_all(RUNS[:1], choices, progress=False, tell=lambda _: None) == RUNS[:1]
    assert (RUNS[0].folder(tmp_path) / "times").read_text() == "xx"
    assert await run_all(RUNS[:1], choices, progress=False) == []
    assert (RUNS[0].folder(tmp_path) / "times").read_text() == "xxxxx"
    done = read_done(RUNS[0].folder(tmp_path))
    assert done is not None
    assert done.command.count("python -c ") == 3


async def test_a_runner_that_is_stopped_stops_its_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = (
        "import signal, sys, pathlib, os\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def stop(*_):\n"
        "    (folder / 'stopped').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "(folder / 'pid.part').write_text(str(os.getpid()))\n"
        "(folder / 'pid.part').rename(folder / 'pid')\n"
        "while True: signal.pause()\n"
    )
    programs(monkeypatch, waits)
    task = asyncio.create_task(run_all(RUNS, Choices(out=tmp_path), at_once=2, progress=False))
    folders = [run.folder(tmp_path) for run in RUNS]
    while not all((folder / "pid").exists() for folder in folders[:2]):
        assert not task.done()
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for folder in folders[:2]:
        assert (folder / "stopped").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / "pid").read_text()), 0)
        assert read_done(folder) is None
    assert not folders[2].exists()
