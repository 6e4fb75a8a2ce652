"""Asks every operation of the OpenAPI document with Schemathesis, with keys and without, of gateways that really run.

    scripts/check-api                    # installs Schemathesis, then runs this
    scripts/check-api --max-examples 50

The gateways stand before a paced engine that searches. One has no API keys, one has; each is asked by those who may ask
and by those who may not. What is taken for right beside the document stands in openapi.toml. Exits with 1 where
Schemathesis finds a fault.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.paced_stack import gateway_before, paced_engine
from loadtests.processes import Server

CONFIG = Path(__file__).with_suffix(".toml")
KEY, ADMIN_KEY = "key-of-a-client-of-this-check", "key-of-the-admin-of-this-check"
_SETTINGS = {
    "admin_key": ADMIN_KEY,
    "engine": "vllm-pool",  # the one that takes replicas
    "deadline_s": "5",
    "max_deadline_s": "10",
    "resume_grace_s": "0.5",
    "shutdown_grace_s": "2",
}
_ADMIN_ONLY = "^/admin"


@dataclass(frozen=True, slots=True)
class Pass:
    """One walk over the operations."""

    name: str
    has_keys: bool
    """Whether the gateway asks for API keys."""
    key: str | None
    """What is sent as a bearer token."""
    options: Sequence[str]


PASSES = (
    Pass("no keys on the server", False, None, ("--exclude-path-regex", _ADMIN_ONLY)),
    Pass("with an API key", True, KEY, ("--exclude-path-regex", _ADMIN_ONLY)),
    Pass("with the admin key", True, ADMIN_KEY, ("--include-path-regex", _ADMIN_ONLY)),
    Pass("without the key that is asked for", True, None, ("--phases", "examples,coverage")),
)


def command(program: Path, server: Server, one: Pass, *, max_examples: int, seed: int) -> list[str]:
    """Return the command line of one pass."""
    header = [] if one.key is None else ["--header", f"Authorization: Bearer {one.key}"]
    return [
        *(str(program), "--config-file", str(CONFIG), "run", f"{server.url}/openapi.json", *header, *one.options),
        *("--max-examples", str(max_examples), "--seed", str(seed), "--generation-database", "none"),
        *("--continue-on-failure", "--request-timeout", "60", "--no-color", "--warnings", "off"),
    ]


def check(program: Path, *, max_examples: int, seed: int) -> list[str]:
    """Run all passes, printing what Schemathesis says; return the names of those that found a fault."""
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with paced_engine(folder, tokens_per_s=1000, num_tokens=12, searches=1, search_s=0.01) as engine:
            for has_keys in (False, True):
                settings = _SETTINGS | ({"api_keys": KEY} if has_keys else {})
                with gateway_before(
                    [engine.url], folder, retriever=f"{engine.url}/retrieve", settings=settings
                ) as gateway:
                    for one in PASSES:
                        if one.has_keys != has_keys:
                            continue
                        print(f"\n== {one.name}", flush=True)
                        words = command(program, gateway, one, max_examples=max_examples, seed=seed)
                        if subprocess.run(words, cwd=folder, check=False).returncode:
                            failed.append(one.name)
    return failed


def main() -> int:
    """Run the check. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="Schemathesis' command.")
    parser.add_argument("--max-examples", type=int, default=10, help="Drawn requests an operation and phase.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = check(options.program.absolute(), max_examples=options.max_examples, seed=options.seed)
    for name in failed:
        print(f"check-api: faults were found: {name}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
