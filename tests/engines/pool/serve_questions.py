"""A process that serves ``questions_model`` as vLLM does; it prints its address. For faults that only a process has."""

import asyncio
import sys

from tests.engines.pool.questions import questions_model
from tests.engines.vllm.fake_vllm import serve_fake_vllm


async def serve(pause_s: float) -> None:
    async with serve_fake_vllm((), encode=lambda text: list(text.encode()), model=questions_model) as fake:
        fake.pause_s = pause_s
        sys.stdout.write(f"{fake.url}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
