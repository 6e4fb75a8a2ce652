"""Runs that are trained several at a time: one that was interrupted goes on from its last save, one done stays."""

import asyncio
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from loadtests.studies.commands import Choices, commands_of
from loadtests.studies.plan import Run
from searchr1.files import whole_file

DONE = "done.json"
_STOPS_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What is kept of a run that came to its end."""

    command: str
    seed: int
    began: float
    """Beginning of its last session, in seconds since 1970."""
    ended: float


def read_done(folder: Path) -> Done | None:
    """Return what is kept of the run in ``folder``; None where it is not done."""
    path = folder / DONE
    return Done(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


async def run_all(
    runs: Sequence[Run],
    choices: Choices,
    *,
    at_once: int = 1,
    progress: bool = True,
    tell: Callable[[str], None] = tqdm.write,
) -> list[Run]:
    """Train the runs that are not done, ``at_once`` at a time, in their order; return those that failed.

    Cancelled, it stops what is running, and waits for it.

    Raises:
        ConfigurationError: a configuration can't be read.
    """
    commands = {run.name: commands_of(run, choices) for run in runs}
    waiting = iter([run for run in runs if read_done(run.folder(choices.out)) is None])
    failed: list[Run] = []
    under_way: list[str] = []
    with tqdm(total=len(runs), desc="runs", unit="run", disable=not progress) as bar:
        bar.update(sum(read_done(run.folder(choices.out)) is not None for run in runs))

        async def work() -> None:
            for run in waiting:
                with _named(under_way, run.name, bar.set_postfix_str):
                    code = await _train(run, commands[run.name], choices, at_once)
                bar.update()
                if code:
                    failed.append(run)
                    tell(f"{run.name} ended with {code}: see {run.folder(choices.out) / 'log'}")

        async with asyncio.TaskGroup() as workers:
            for _ in range(at_once):
                workers.create_task(work())
    return failed


@contextlib.contextmanager
def _named(under_way: list[str], name: str, show: Callable[[str], None]) -> Iterator[None]:
    under_way.append(name)
    show(", ".join(under_way))
    try:
        yield
    finally:
        under_way.remove(name)
        show(", ".join(under_way))


async def _train(run: Run, commands: Sequence[Sequence[str]], choices: Choices, at_once: int) -> int:
    """Run commands one after the other; return the exit code of the last one, and keep that the run is done."""
    folder, began = run.folder(choices.out), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    for command in commands:
        if code := await _ended(command, folder / "log", num_threads=max(1, (os.cpu_count() or 1) // at_once)):
            return code
    done = Done(" && ".join(map(_shown, commands)), run.seed, began, time.time())
    with whole_file(folder / DONE) as file:
        file.write(json.dumps(asdict(done)).encode())
    return 0


async def _ended(command: Sequence[str], log: Path, *, num_threads: int) -> int:
    """Run a command to its end, what it says in ``log``; return its exit code."""
    environment = {"OMP_NUM_THREADS": str(num_threads)} | os.environ
    with log.open("ab") as file:
        file.write(f"$ {_shown(command)}\n".encode())
        file.flush()
        process = await asyncio.create_subprocess_exec(*command, stdout=file, stderr=file, env=environment)
        try:
            return await process.wait()
        finally:
            await _stopped(process)


def _shown(command: Sequence[str]) -> str:
    """Return a command as a reader would type it."""
    return shlex.join(["python" if word == sys.executable else word for word in command])


async def _stopped(process: asyncio.subprocess.Process) -> None:
    """Stop a process that runs still: a training run ends in order at a SIGTERM, its engine with it."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOPS_WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
