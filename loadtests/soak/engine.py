"""An engine to break: the tests' fake vLLM in a process of its own, a word at a time, with faults told by a file.

    python -m loadtests.soak.engine --port 8123 --fault-file fault

While the file holds the name of a ``Fault``, every completion has it. Kill and stop the process for the other faults.
"""

import argparse
import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import FakeVllm, Fault, serve_fake_vllm

_MAX_MODEL_LEN = 8192
_POLL_S = 0.2
_BYTES_PER_WRITE = 1024
_PAUSE_S = 0.02
_PLACES = ("Mali", "Chad", "Fiji", "Peru", "Nepal", "Ghana", "Malta", "Qatar", "Samoa", "Tonga", "Yemen", "Kenya")


def turns(chance: random.Random) -> Iterator[list[str]]:
    """Yield turns without end, in pieces: half of them answer, most others search, a few do neither."""
    while True:
        place, number = chance.choice(_PLACES), chance.randrange(5000)
        thought = f"I want to know more about {place}, so let me see what is told of it. " * chance.randint(1, 3)
        kind = chance.random()
        if kind < 0.5:
            action = f"<answer> the answer is {place} </answer>"
        elif kind < 0.95:
            action = f"<search> what is told of {place} in entry {number} </search>"
        else:
            action = "Nothing comes to mind."
        yield [word + " " for word in f"<think> {thought}</think> {action}".split()]


async def serve(port: int, fault_file: Path) -> None:
    """Serve until the process ends."""
    encode = Tokenizer.load(str(CHECKPOINT)).encode
    async with serve_fake_vllm(turns(random.Random(port)), encode=encode, port=port) as fake:
        fake.max_model_len, fake.bytes_per_write, fake.pause_s = _MAX_MODEL_LEN, _BYTES_PER_WRITE, _PAUSE_S
        while True:
            _forget(fake)
            told = fault_file.read_text("utf-8").strip() if fault_file.exists() else ""  # noqa: ASYNC240 (tiny)
            fake.fault = Fault[told] if told else None
            await asyncio.sleep(_POLL_S)


def _forget(fake: FakeVllm) -> None:
    """Drop what tests would look at, which grows with every request."""
    fake.bodies.clear()
    fake.headers.clear()
    fake.ports.clear()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fault-file", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.fault_file))


if __name__ == "__main__":
    main()
