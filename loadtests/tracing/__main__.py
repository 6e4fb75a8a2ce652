"""Traces: one run's as a collector passes it on, drawn; and what tracing costs a run.

    pip install rotel    # in an environment of its own: a collector in one program
    python -m loadtests.tracing picture --collector PATH/rotel/rotel-agent --out docs/images/trace.png
    python -m loadtests.tracing cost --collector PATH/rotel/rotel-agent

The gateway is a real one, with stand-ins for vLLM and for a search server behind it. The gateway sends its spans to the
collector, the collector to a receiver here, and what arrives there is drawn. For the costs the collector drops them.
"""

import argparse
import asyncio
from pathlib import Path

from loadtests.tracing import cost, picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("picture", "cost"):
        command = commands.add_parser(name)
        command.add_argument("--collector", type=Path, required=True, help="the program rotel-agent")
        command.add_argument("--port", type=int, default=21060, help="the first of three free ports on 127.0.0.1")
        if name == "picture":
            command.add_argument("--out", type=Path, required=True)
        else:
            command.add_argument("--rounds", type=int, default=9)
            command.add_argument("--runs", type=int, default=100, help="runs of a round; an eighth of it for long ones")
    given = parser.parse_args()
    if given.command == "picture":
        asyncio.run(picture.main(given.collector, given.port, given.out))
    else:
        asyncio.run(cost.main(given.collector, given.port, given.rounds, given.runs))


if __name__ == "__main__":
    main()
