"""Trains a model on a GPU for a few steps, and times rollouts and updates at Qwen2.5's sizes, in under ten minutes.

    python -m loadtests.gpu --model SmolLM2-135M-Instruct --out docs/results
    python -m loadtests.gpu --model server/searchr1/demo/checkpoint --rehearse      # on a CPU, in small

``--model`` is the folder of a small model, whose tokenizer the random ones take, too; one without weights stands for
random ones of its configuration. Needs the extras server, index and train with torch's CUDA build, no vLLM and no
network. What time does not allow is left out and named. ``gpu.json`` and ``gpu.md`` name the machine.
"""

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from pathlib import Path

from loadtests.gpu import shapes, timing, training
from loadtests.gpu.machine import machine_here
from loadtests.gpu.page import Result, write_result
from searchr1.errors import SearchR1Error

BUDGET_S = 560.0


def measure(model: Path, *, rehearse: bool, budget_s: float = BUDGET_S, scratch: Path | None = None) -> Result:
    """Run everything and return the figures. Scratch files, 10 GB for the largest shape, go below ``scratch``.

    Raises:
        SearchR1Error: there is no GPU or no such model.
    """
    started = time.perf_counter()

    def left_s() -> float:
        return budget_s - (time.perf_counter() - started)

    machine = machine_here(rehearse=rehearse)
    load = training.REHEARSED if rehearse else training.LOAD
    work = timing.REHEARSED if rehearse else timing.WORK
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        run = training.run_training(model, folder, machine, load)
        _say(f"{run.model} trained for {len(run.steps)} steps", left_s())
        timings = []
        for shape in shapes.REHEARSED if rehearse else shapes.SHAPES:
            place = folder / shape.name
            timings.append(timing.time_shape(shape, model, place, machine, work, left_s))
            shutil.rmtree(place, ignore_errors=True)
            _say(f"{shape.name}: {timings[-1].left_out or 'timed'}", left_s())
    return Result(
        date=str(datetime.datetime.now(datetime.UTC).date()),
        command=f"python -m loadtests.gpu --model {model.name}{' --rehearse' if rehearse else ''}",
        machine=machine,
        wall_s=time.perf_counter() - started,
        training=run,
        work=work,
        timings=tuple(timings),
    )


def _say(what: str, left_s: float) -> None:
    print(f"gpu: {what}; {left_s:.0f} s left", file=sys.stderr, flush=True)


def main() -> None:
    """Parse the arguments, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where gpu.json and gpu.md go")
    parser.add_argument("--rehearse", action="store_true", help="everything in small on the CPU")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds for all of it (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, help="a folder for 10 GB of scratch files, instead of the system's")
    arguments = parser.parse_args()
    try:
        result = measure(
            arguments.model, rehearse=arguments.rehearse, budget_s=arguments.budget_s, scratch=arguments.scratch
        )
    except SearchR1Error as error:
        sys.exit(f"gpu: {error}")
    for path in write_result(result, arguments.out):
        print(path)


if __name__ == "__main__":
    main()
