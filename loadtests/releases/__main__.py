"""An old and a new release side by side on one Redis: what each makes of the other's runs, stored and under way.

    git worktree add --detach /tmp/old 2147762
    python -m loadtests.releases --old /tmp/old

``--old`` is a checkout of the older release, run from its own folder by this interpreter. Each release uses what the
other has stored, by a tenant's key and by a key without a tenant; then each is told to stop, with a short and with a
long grace, and is killed, under streams and responses in the background that are followed to their ends at the other.
Exits with 1 where something is lost without being told, wrong, or a 500. What is known not to work is in the guide on
upgrades, and is printed.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

import aiohttp

from loadtests.processes import ROOT
from loadtests.releases.asking import Client
from loadtests.releases.stack import PLAIN_KEY, TENANT_KEY, Release, running_releases, told_version
from loadtests.releases.stops import TOLD, WHOLE, ends_of_runs
from loadtests.releases.stored import seen_of_stored

_KEYS = {"a tenant's key": TENANT_KEY, "a key without a tenant": PLAIN_KEY}
_STOPS = {"SIGTERM, grace 0.2 s": "0.2", "SIGTERM, grace 30 s": "30", "kill -9": ""}
"""By name, the grace; none where the gateway is killed."""
_PAUSE_S = 0.3
"""Before each chunk of runs that shall be under way at an end: each takes some seconds."""


def _session(key: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=120)
    # Connections are not kept: a gateway that has ended would be found by the next request.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, timeout=timeout, connector=connector)


async def compare_stored(old: Release, new: Release) -> int:
    """Print a table of what works with stored runs; return the number of failures."""
    seen: list[dict[str, str]] = []
    for key in _KEYS.values():
        async with _session(key) as http:
            one, other = Client(http, old.url), Client(http, new.url)
            seen += [await seen_of_stored(one, other), await seen_of_stored(other, one)]
    directions = [f"{way}, {name}" for name in _KEYS for way in ("of the old, at the new", "of the new, at the old")]
    print(f"| stored | {' | '.join(directions)} |", f"|---|{'---|' * len(directions)}", sep="\n")
    for name in seen[0]:
        print(f"| {name} | {' | '.join(column[name] for column in seen)} |")
    return sum(not value.startswith("yes") for column in seen for value in column.values())


async def stop_under_runs(leaving: Release, other: Release, stop: str, num_runs: int) -> int:
    """Print how runs ended whose gateway went; return the number of those that were neither whole nor told."""
    async with _session(TENANT_KEY) as http:
        clients = Client(http, leaving.url), Client(http, other.url)
        ends = await ends_of_runs(leaving, clients, is_kill=not _STOPS[stop], num_runs=num_runs)
    for kind, counts in ends.items():
        told = Counter({end: number for end, number in counts.items() if end in TOLD})
        rest = Counter({end: number for end, number in counts.items() if end != WHOLE and end not in TOLD})
        cells = [counts[WHOLE], _shown(told), _shown(rest)]
        print(f"| {leaving.name} | {stop} | {kind} | {' | '.join(map(str, cells))} |", flush=True)
    return sum(map(num_wrong, ends.values()))


def num_wrong(ends: Counter[str]) -> int:
    """Return the number of ends that are neither whole nor told."""
    return sum(number for end, number in ends.items() if end != WHOLE and end not in TOLD)


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{number} `{end}`" for end, number in sorted(counts.items())) or "0"


def main() -> None:
    """Parse the arguments; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="checkout of the older release")
    parser.add_argument("--runs", type=int, default=8, help="streams, and as many in the background, under each stop")
    parser.add_argument("--logs", type=Path, help="folder that keeps the logs (default: a temporary one)")
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as temporary:
        logs = options.logs or Path(temporary)

        def folder(name: str) -> Path:
            (path := logs / name).mkdir(parents=True, exist_ok=True)
            return path

        old = options.old.resolve()
        print(f"old: {told_version(old)}, new: {told_version(ROOT)}", end="\n\n", flush=True)
        with running_releases(old, folder("stored"), {}, pause_s=0.0) as releases:
            failures += asyncio.run(compare_stored(*releases))
        print("\n| ends | how | runs | whole at the other | told | else |", "|---|---|---|---|---|---|", sep="\n")
        for number, (stop, grace) in enumerate(_STOPS.items()):
            settings = {"SEARCHR1_SHUTDOWN_GRACE_S": grace} if grace else {}
            for turn in (1, -1):
                with running_releases(old, folder(f"stop-{number}-{turn}"), settings, pause_s=_PAUSE_S) as releases:
                    leaving, other = releases[::turn]
                    failures += asyncio.run(stop_under_runs(leaving, other, stop, options.runs))
    print(f"\n{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
