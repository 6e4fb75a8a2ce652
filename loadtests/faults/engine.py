"""An engine whose every answer is known beforehand, with faults told by a file.

    python -m loadtests.faults.engine --port 8123 --fault-file fault

It answers the questions of ``tests/engines/pool/questions.py`` through the demo's tokenizer. While the file says
``DROP RATE``, every tenth completion has one of these faults, in turn.
"""

import argparse
import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from tests.engines.deterministic import decode, encode, sampled
from tests.engines.pool.questions import completion_of
from tests.engines.vllm.fake_vllm import Fault, serve_fake_vllm

EVERY = 10
_PAUSE_S = 0.02
_POLL_S = 0.1
_END = SEARCH_R1.tags.observation.close
_NUM_IN_INSTRUCTIONS = SEARCH_R1.prompt("").count(_END)


def question_of(number: int) -> str:
    """Return a question that this engine knows."""
    return f"What of number {number}?"


def answering(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """Return the rest of what the model writes, behind what the prompt holds of it already."""
    text = decode(tuple(prompt_ids))
    found = re.search(r"What of number (\d+)\?", text)
    if found is None:  # A probe.
        return sampled(prompt_ids, encode("yes"), params)
    whole = encode(completion_of(int(found[1]), 1 + text.count(_END) - _NUM_IN_INSTRUCTIONS))
    done = next(n for n in range(len(whole), -1, -1) if list(prompt_ids[len(prompt_ids) - n :]) == whole[:n])
    return sampled(prompt_ids, whole[done:], params)


async def serve(host: str, port: int, fault_file: Path, pause_s: float) -> None:
    """Serve until the process ends."""
    async with serve_fake_vllm((), encode=encode, host=host, port=port, model=answering) as fake:
        fake.pause_s, fake.max_model_len = pause_s, 8192
        faults: list[Fault] = []

        def fault_of(number: int) -> Fault | None:
            return faults[number // EVERY % len(faults)] if faults and number % EVERY == 3 else None

        fake.fault_of = fault_of
        while True:
            told = fault_file.read_text("utf-8") if fault_file.exists() else ""  # noqa: ASYNC240 (tiny)
            faults[:] = [Fault[name] for name in told.split()]
            await asyncio.sleep(_POLL_S)


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--fault-file", type=Path, required=True)
    parser.add_argument("--pause-s", type=float, default=_PAUSE_S, help="seconds before each chunk")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.fault_file, options.pause_s))


if __name__ == "__main__":
    main()
