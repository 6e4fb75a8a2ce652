"""What stands behind the gateway that Prometheus watches: two engines and a search, with faults told by a file.

    python -m loadtests.monitoring.behind --ports 21001 21002 21003 --fault-file fault

The engines, on the first two ports, are the tests' fake vLLM; while the file holds the name of a ``Fault``, every
completion has it. The search, on the third, answers at ``/retrieve``.
"""

import argparse
import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from loadtests.soak.engine import turns
from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import FakeVllm, Fault, serve_fake_vllm

_POLL_S = 0.1
_PAUSE_S = 0.02
_BYTES_PER_WRITE = 1024
_NUM_BLOCKS = 4096
_NUM_CACHED_TOKENS = 128
_DOCUMENT = {"id": "1", "contents": "Mali\nThe capital of Mali is Bamako."}


async def serve(ports: Sequence[int], fault_file: Path) -> None:
    """Serve until the process ends."""
    encode = Tokenizer.load(str(CHECKPOINT)).encode
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(serve_fake_vllm(turns(random.Random(port)), encode=encode, port=port))
            for port in ports[:2]
        ]
        app = web.Application()
        app.router.add_post("/retrieve", _retrieve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", ports[2]).start()
        for engine in engines:
            engine.max_model_len, engine.bytes_per_write, engine.pause_s = 8192, _BYTES_PER_WRITE, _PAUSE_S
            engine.num_blocks, engine.num_cached_tokens = _NUM_BLOCKS, _NUM_CACHED_TOKENS
        while True:
            told = fault_file.read_text("utf-8").strip() if fault_file.exists() else ""  # noqa: ASYNC240 (tiny)
            for engine in engines:
                engine.fault = Fault[told] if told else None
                _forget(engine)
            await asyncio.sleep(_POLL_S)


async def _retrieve(request: web.Request) -> web.Response:
    queries = (await request.json())["queries"]
    return web.json_response({"result": [[{"document": _DOCUMENT, "score": 1.0}] for _ in queries]})


def _forget(engine: FakeVllm) -> None:
    """Drop what tests would look at, which grows with every request."""
    for kept in (engine.bodies, engine.headers, engine.ports, engine.told):
        kept.clear()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, nargs=3, required=True)
    parser.add_argument("--fault-file", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.ports, options.fault_file))


if __name__ == "__main__":
    main()
