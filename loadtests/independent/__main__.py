"""What load clients of others say: NVIDIA's aiperf and vLLM's guidellm against an engine straight, and the gateway.

    python -m loadtests.independent --clients aiperf guidellm
    python -m loadtests.independent --vllm --concurrency 8 --requests 48

starts a paced engine, or with ``--vllm`` vLLM on the demo's checkpoint, and a gateway before it. Each client asks each
of them for chat completions, in turns, round by round, so that a noisy machine hits all. With ``--litellm`` and
``--agentic`` those programs stand before the same engine, too. Prints one table of the clients' own figures, medians
over the rounds. ``scripts/setup-programs`` installs both clients.

All servers do the same work for a request: one completion, from the same prompt, without a search. So the engine is
asked with the prompt that the gateway makes, and the gateway with the question.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.independent.clients import CLIENTS, Client, Figures, Load
from loadtests.paced_stack import demo_vllm, paced_engine
from loadtests.processes import ROOT, DidNotStartError, Server
from loadtests.streaming.paced_engine import MODEL
from loadtests.streaming.sides import CHAT, programs, stream
from searchr1.demo.bundle import EXAMPLES
from searchr1.errors import SearchR1Error
from searchr1.loop.profiles.search_r1 import SEARCH_R1

_VLLM_TOKENS = 200
"""The demo's longest completion has fewer (``searchr1.demo.bundle``)."""
_PACED_MORE = 64
"""The paced engine knows no bound; that of the gateway shall not cut its answer."""
_STOPS = ["</search>", "</answer>"]
_HEAD = (
    "| client | server | done | errors | requests/s | first token p50, ms | p95 | between tokens, ms "
    "| request p50, ms | p95 | output tokens/s | tokens a request |"
)
_FORMS = (".0f", ".0f", ".2f", ".0f", ".0f", ".2f", ".0f", ".0f", ".0f", ".1f")


@dataclass(frozen=True)
class Side:
    """A server, and how it is asked for one completion."""

    name: str
    url: str
    body: Mapping[str, Any]
    prompts: tuple[str, ...]


def sides_of(engine: Server, others: Mapping[str, Server], max_tokens: int) -> list[Side]:
    """Return the engine and the servers before it, of which ``gateway`` makes its prompts itself."""
    straight = {"temperature": 0, "max_tokens": max_tokens, "stop": _STOPS, "include_stop_str_in_output": True}
    through = {"temperature": 0, "max_tokens": max_tokens, "max_searches": 0}
    prompts = tuple(SEARCH_R1.prompt(question) for question in EXAMPLES)
    sides = [Side("engine", engine.url, straight, prompts)]
    for name, server in others.items():
        makes_prompts = name == "gateway"
        body, texts = (through, EXAMPLES) if makes_prompts else (straight, prompts)
        sides.append(Side(name, server.url, body, texts))
    return sides


def median_of(rounds: Sequence[Figures]) -> Figures:
    """Return the median of each figure; requests are counted together. None where a round has none."""

    def median(name: str) -> float | None:
        found: list[float | None] = [getattr(one, name) for one in rounds]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            return None
        return sum(values) if name in ("num_done", "num_errors") else statistics.median(values)

    return Figures(**{field.name: median(field.name) for field in fields(Figures)})


def row_of(client: str, side: str, figures: Figures) -> str:
    """Return a row of the table; a figure that the client did not give is a dash."""
    values = (getattr(figures, field.name) for field in fields(Figures))
    cells = ["–" if value is None else format(value, form) for value, form in zip(values, _FORMS, strict=True)]
    return f"| {' | '.join([client, side, *cells])} |"


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[list[Side]]:
    """Start the servers; yield the sides, each of which has answered before."""
    with ExitStack() as servers:
        if options.vllm:
            # The proxies know the paced engine's name. Few questions are asked again and again.
            named = ("--served-model-name", MODEL, "--no-enable-prefix-caching")
            engine = servers.enter_context(demo_vllm(logs, *named))
        else:
            pace = paced_engine(logs, tokens_per_s=options.tokens_per_s, num_tokens=options.num_tokens)
            engine = servers.enter_context(pace)
        names = ["gateway", *(["LiteLLM"] if options.litellm else []), *(["agentic-api"] if options.agentic else [])]
        started = [
            servers.enter_context(program.start(engine, logs))
            for program in programs(litellm=options.litellm, agentic=options.agentic)
        ]
        max_tokens = _VLLM_TOKENS if options.vllm else 2 * options.num_tokens + _PACED_MORE
        sides = sides_of(engine, dict(zip(names, started, strict=True)), max_tokens)
        for side in sides:
            asyncio.run(_warm(side.url, options.concurrency))
        yield sides


async def _warm(url: str, concurrency: int) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(stream(session, url, CHAT) for _ in range(concurrency)))


def measure(options: argparse.Namespace, clients: Sequence[Client], sides: Sequence[Side], folder: Path) -> None:
    """Have each client ask each side, round by round, and print the table."""
    seen: dict[tuple[str, str], list[Figures]] = {(c.program, s.name): [] for c in clients for s in sides}
    for number in range(options.rounds):
        for client in clients:
            for side in sides if number % 2 == 0 else reversed(sides):
                where = folder / f"{number}-{client.program}-{side.name}"
                where.mkdir()
                load = _load(side, options, where / "prompts.jsonl")
                figures = client.measure(options.programs, load, where, options.spare_s)
                seen[client.program, side.name].append(figures)
                print(row_of(client.program, side.name, figures), file=sys.stderr, flush=True)
    print(_HEAD)
    print("|---" * (2 + len(_FORMS)) + "|")
    for (program, name), rounds in seen.items():
        print(row_of(program, name, median_of(rounds)), flush=True)


def _load(side: Side, options: argparse.Namespace, prompts: Path) -> Load:
    texts = islice(cycle(side.prompts), options.requests)
    prompts.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return Load(side.url, MODEL, side.body, prompts, options.requests, options.concurrency, options.max_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", choices=sorted(CLIENTS), default=sorted(CLIENTS))
    parser.add_argument("--programs", type=Path, default=ROOT / ".venv-programs" / "bin", help="the folder they are in")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=256, help="of each client to each server, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-s", type=float, default=120.0, help="after which a client sends no more in a round")
    parser.add_argument("--spare-s", type=float, default=180.0, help="beyond that, for a client to start and to end")
    parser.add_argument(
        "--vllm", action="store_true", help="vLLM on the demo's checkpoint, in the paced engine's place"
    )
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each of the paced engine's streams")
    parser.add_argument(
        "--num-tokens", type=int, default=256, help="of a completion of the paced engine, and an answer"
    )
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy (scripts/setup-compared)")
    parser.add_argument("--agentic", help="the program agentic-server (scripts/setup-compared)")
    return parser


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    options = _parser().parse_args()
    clients = [CLIENTS[name] for name in dict.fromkeys(options.clients)]
    try:
        for client in clients:
            client.path(options.programs)
        with tempfile.TemporaryDirectory() as name, stack(options, Path(name)) as sides:
            measure(options, clients, sides, Path(name))
    except (SearchR1Error, DidNotStartError) as error:
        sys.exit(f"independent: {error}")


if __name__ == "__main__":
    main()
