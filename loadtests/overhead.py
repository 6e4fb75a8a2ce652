"""What the gateway costs: the same runs by a bare loop straight against vLLM, and through the gateway, side by side.

    python -m loadtests.overhead
    python -m loadtests.overhead --paced 10 --concurrency 256

starts vLLM on the demo checkpoint and a gateway in front of it, both on 127.0.0.1; or, with ``--paced``, an engine
that decodes at so many tokens a second for any number of completions, as a GPU with room does. Both sides ask the same
questions greedily of the same engine with the same index. The bare loop is the least that answers a question: aiohttp,
a regular expression and a string. Rounds alternate, so that a noisy machine hits both. Prints throughput and latency
ratios (gateway / bare; medians over rounds) and the gateway's CPU per streamed token.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.paced_stack import demo_vllm, gateway_before, paced_engine
from loadtests.processes import Server
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT, build_demo, demo_settings
from searchr1.loop.profiles.search_r1 import RETRY, SEARCH_R1
from searchr1.retrieval.base import Found
from searchr1.retrieval.factory import open_retriever
from searchr1.tokenizer import Tokenizer

ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)


@dataclass
class Round:
    """One pass over the questions: ``latencies_s`` per run, in no order."""

    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    answers: dict[str, str | None] = field(default_factory=dict)

    @property
    def runs_per_s(self) -> float:
        return len(self.latencies_s) / self.wall_s


Ask = Callable[[str], Awaitable[tuple[str | None, int]]]


async def measure(questions: list[str], concurrency: int, ask: Ask) -> Round:
    """Ask all ``questions``, ``concurrency`` at once."""
    result, gate = Round(), asyncio.Semaphore(concurrency)

    async def one(question: str) -> None:
        async with gate:
            started = time.perf_counter()
            answer, num_tokens = await ask(question)
            result.latencies_s.append(time.perf_counter() - started)
            result.num_tokens += num_tokens
            result.answers[question] = answer

    started = time.perf_counter()
    await asyncio.gather(*(one(q) for q in questions))
    result.wall_s = time.perf_counter() - started
    return result


async def bare_completion(session: aiohttp.ClientSession, url: str, model: str, ids: list[int]) -> tuple[str, int]:
    """Text of one completion and its number of tokens."""
    body = {
        "model": model,
        "prompt": ids,
        "stream": True,
        "temperature": 0,
        "max_tokens": 500,
        "stop": ["</search>", "</answer>"],
        "include_stop_str_in_output": True,
        "return_token_ids": True,
    }
    text, num_tokens = "", 0
    try:
        answering = await session.post(f"{url}/v1/completions", json=body)
    except aiohttp.ServerDisconnectedError:  # A pooled connection that vLLM had just closed.
        answering = await session.post(f"{url}/v1/completions", json=body)
    async with answering as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["text"]
                    num_tokens += len(choice.get("token_ids") or ())
    return text, num_tokens


async def compare(args: argparse.Namespace) -> None:
    """Run the rounds and print the table."""
    tokenizer = Tokenizer.load(str(CHECKPOINT))
    questions = args.questions
    # Shorter than the five seconds after which vLLM closes an idle connection.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector) as session, open_retriever(f"index:{args.index}") as index:
        async with session.get(f"{args.engine_url}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]

        async def ask_bare(question: str) -> tuple[str | None, int]:
            ids = tokenizer.encode_prompt(tokenizer.render(SEARCH_R1.prompt(question)))
            num_tokens = 0
            for turn in range(5):
                text, sampled = await bare_completion(session, args.engine_url, model, ids[-4096:])
                num_tokens += sampled
                action = ACTION.search(text)
                if action and action[1] == "answer":
                    return action[2].strip(), num_tokens
                if turn == 4:
                    break
                observation = RETRY
                if action:
                    outcome = await index.search(action[2].strip(), 3, 10.0)
                    assert isinstance(outcome, Found)
                    observation = SEARCH_R1.observation(outcome.passages)
                ids += tokenizer.encode(text) + tokenizer.encode(observation)[:500]
            return None, num_tokens

        async def ask_gateway(question: str) -> tuple[str | None, int]:
            body = {"question": question, "stream": True, "temperature": 0}
            answer, num_tokens = None, 0
            async with session.post(f"{args.url}/v1/research", json=body) as response:
                response.raise_for_status()
                async for line in response.content:
                    if line.startswith(b'data: {"seq"') and b'"type":"answer.completed"' in line:
                        answer = json.loads(line[6:])["text"]
                    elif line.startswith(b'data: {"seq"') and b'"type":"run.completed"' in line:
                        num_tokens = json.loads(line[6:])["usage"]["completion_tokens"]
            return answer, num_tokens

        await measure(questions[:8], 8, ask_bare)
        await measure(questions[:8], 8, ask_gateway)
        print(
            "| at once | runs | bare runs/s | gateway runs/s | throughput ratio "
            "| p50 ratio | p95 ratio | CPU µs/token | same answers |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for concurrency in args.concurrency:
            await _row(args, questions, concurrency, ask_bare, ask_gateway, args.gateway_pid)


async def _row(
    args: argparse.Namespace,
    questions: list[str],
    concurrency: int,
    ask_bare: Ask,
    ask_gateway: Ask,
    gateway: int,
) -> None:
    num_runs = min(len(questions), max(8, concurrency * args.runs_per_slot))
    bare: list[Round] = []
    through: list[Round] = []
    cpu_s = 0.0
    for number in range(args.rounds):
        asked = questions[number * num_runs :][:num_runs] or questions[:num_runs]
        sides: list[tuple[list[Round], Ask]] = [(bare, ask_bare), (through, ask_gateway)]
        for rounds, ask in sides if number % 2 == 0 else reversed(sides):
            before = _cpu_s(gateway)
            rounds.append(await measure(asked, concurrency, ask))
            if rounds is through:
                cpu_s += _cpu_s(gateway) - before
    throughput = statistics.median(t.runs_per_s / b.runs_per_s for b, t in zip(bare, through, strict=True))
    p50, p95 = (_latency_ratio(bare, through, q) for q in (0.50, 0.95))
    num_tokens = sum(t.num_tokens for t in through)
    pairs = [(b.answers[q], t.answers[q]) for b, t in zip(bare, through, strict=True) for q in b.answers]
    same = sum(b == t for b, t in pairs) / len(pairs)
    bare_rate = statistics.median(b.runs_per_s for b in bare)
    rate = statistics.median(t.runs_per_s for t in through)
    print(
        f"| {concurrency} | {num_runs} × {args.rounds} | {bare_rate:.2f} | {rate:.2f} | {throughput:.3f} "
        f"| {p50:.3f} | {p95:.3f} | {1e6 * cpu_s / num_tokens:.0f} | {same:.0%} |",
        flush=True,
    )


def _latency_ratio(bare: list[Round], through: list[Round], quantile: float) -> float:
    def at(rounds: list[Round]) -> float:
        latencies = sorted(s for r in rounds for s in r.latencies_s)
        return latencies[min(len(latencies) - 1, int(quantile * len(latencies)))]

    return at(through) / at(bare)


def _cpu_s(pid: int) -> float:
    """User and system time of a process, from the kernel's own count."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read_questions(path: Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)["question"] for line in lines))


@contextlib.contextmanager
def _stack(args: argparse.Namespace, logs: Path) -> Iterator[tuple[str, Server]]:
    """An engine and a gateway in front of it."""
    with contextlib.ExitStack() as servers:
        if args.paced is None:
            engine, model = servers.enter_context(demo_vllm(logs, *args.engine_args.split())), str(CHECKPOINT)
        else:
            engine = servers.enter_context(paced_engine(logs, tokens_per_s=args.paced, num_tokens=48, searches=1))
            model = MODEL
        gateway = gateway_before([engine.url], logs, model=model, retriever=f"index:{args.index}")
        yield engine.url, servers.enter_context(gateway)


def main() -> None:
    """Parse the arguments, start the servers and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paced", type=float, help="tokens/s of each completion of a paced engine, in vLLM's place")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--engine-args", default="--no-enable-prefix-caching")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--runs-per-slot", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    build_demo(args.data_dir)
    args.index = demo_settings(args.data_dir)["retriever"].removeprefix("index:")
    args.questions = _read_questions(args.data_dir / "atlas" / "questions-test.jsonl")
    with tempfile.TemporaryDirectory() as logs, _stack(args, Path(logs)) as (engine_url, gateway):
        args.engine_url, args.url, args.gateway_pid = engine_url, gateway.url, gateway.pid
        asyncio.run(compare(args))


if __name__ == "__main__":
    main()
