"""Two real vLLMs, one of them killed under load: how many runs are answered, and how many read otherwise than before.

    python -m loadtests.faults.real
    python -m loadtests.faults.real --router /path/to/bin/vllm-router

starts two vLLMs of the demo's checkpoint, vLLM's router before them if its program is given, and a gateway. The same
questions are asked greedily twice, the second time with one vLLM killed once a third has been answered.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp

from loadtests.faults.reading import Reading, read_run
from loadtests.faults.stack import running_router
from loadtests.paced_stack import gateway_before
from loadtests.processes import VLLM_ENVIRONMENT, free_port, vllm_server
from loadtests.soak.stack import Program
from searchr1.demo.bundle import CHECKPOINT, build_demo, demo_settings


async def read_all(url: str, questions: list[str], at_once: int, victim: Program | None) -> list[Reading]:
    """Ask all questions; kill ``victim`` once a third has been answered."""
    gate, num_read = asyncio.Semaphore(at_once), 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(question: str) -> Reading:
            nonlocal num_read
            async with gate:
                reading = await read_run(http, [url], question)
            num_read += 1
            if num_read == len(questions) // 3 and victim is not None:
                await asyncio.to_thread(victim.kill)
            return reading

        return await asyncio.gather(*map(one, questions))


@contextmanager
def engines(folder: Path) -> Iterator[tuple[list[str], Program]]:
    """Run two vLLMs until the block ends; yield their addresses, and one of them to be killed."""
    with ExitStack() as stack:
        urls, programs = [], []
        for number in range(2):
            port = free_port()
            command = vllm_server(CHECKPOINT, port, "--max-model-len", "4596", "--max-num-seqs", "16")
            program = Program(command, port, ready="/health", log=folder / f"vllm-{number}.log", timeout_s=300)
            stack.callback(program.stop)
            urls.append(program.start(VLLM_ENVIRONMENT).url)
            programs.append(program)
        yield urls, programs[0]


def main() -> None:
    """Parse the arguments, ask twice, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", help="the program vllm-router, to stand between gateway and engines")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    build_demo(options.data_dir)
    lines = (options.data_dir / "atlas" / "questions-test.jsonl").read_text("utf-8").splitlines()
    questions = [str(json.loads(line)["question"]) for line in lines[: options.runs]]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        urls, victim = stack.enter_context(engines(folder))
        if options.router is not None:
            urls = [stack.enter_context(running_router(options.router, urls, folder)).url]
        retriever = demo_settings(options.data_dir)["retriever"]
        gateway = stack.enter_context(gateway_before(urls, folder, model=str(CHECKPOINT), retriever=retriever))
        before = asyncio.run(read_all(gateway.url, questions, options.at_once, None))
        after = asyncio.run(read_all(gateway.url, questions, options.at_once, victim))
    print("| runs | answered before | answered with one killed | read otherwise | events out of order |")
    print("|---|---|---|---|---|")
    answered = [sum(reading.end == "completed" for reading in readings) for readings in (before, after)]
    differ = sum(one.text_read != other.text_read for one, other in zip(before, after, strict=True))
    gaps = sum(reading.num_gaps for reading in after)
    print(f"| {len(questions)} | {answered[0]} | {answered[1]} | {differ} | {gaps} |")


if __name__ == "__main__":
    main()
