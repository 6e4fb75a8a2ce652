"""The locust scenarios against a gateway before a paced engine.

    python -m loadtests.locust --locust .venv-programs/bin/locust

starts the engine, with a search in each run, and the gateway, runs the users of ``locustfile.py`` for a bounded time,
prints locust's tables, and exits with 1 where a request failed.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from loadtests.paced_stack import NO_LIMITS, gateway_before, paced_engine

_SCENARIOS = Path(__file__).with_name("locustfile.py")
_SPARE_S = 60.0


def run(options: argparse.Namespace, logs: Path) -> int:
    """Start everything, run the users, and return locust's exit code."""
    with ExitStack() as servers:
        engine = servers.enter_context(
            paced_engine(logs, tokens_per_s=options.tokens_per_s, num_tokens=32, searches=1, search_s=0.3, spread=0.5)
        )
        settings = {**NO_LIMITS, "cache": "false"}
        search = f"{engine.url}/retrieve"
        gateway = servers.enter_context(gateway_before([engine.url], logs, retriever=search, settings=settings))
        command = [options.locust, "-f", str(_SCENARIOS), "--headless", "--only-summary", "--host", gateway.url]
        command += ["--users", str(options.users), "--spawn-rate", str(options.users)]
        command += ["--run-time", f"{options.seconds}s", "--stop-timeout", "30s"]
        return subprocess.run(command, timeout=options.seconds + _SPARE_S, check=False).returncode


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--locust", default=".venv-programs/bin/locust", help="the program (scripts/setup-programs)")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each stream")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs:
        sys.exit(run(options, Path(logs)))


if __name__ == "__main__":
    main()
