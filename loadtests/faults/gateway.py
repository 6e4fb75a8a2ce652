"""The ``searchr1`` command, whose engines come and go as the pods of a service do.

    python -m loadtests.faults.gateway ADDRESSES searchr1's arguments …

``dns+http://…`` stands for the hosts that the file lists at that moment.
"""

import asyncio
import sys
from pathlib import Path

from searchr1.cli.main import main as command
from searchr1.engines.pool.discovery import DnsName

NAME = "engines.test"


def main() -> None:
    """Put the file in the resolver's place and run the command."""
    listed = Path(sys.argv.pop(1))

    async def addresses(self: DnsName) -> frozenset[str]:
        hosts = (await asyncio.to_thread(listed.read_text, "ascii")).split()
        return frozenset(f"http://{host}:{self.url.port}" for host in hosts)

    DnsName.addresses = addresses  # type: ignore[method-assign]
    command()


if __name__ == "__main__":
    main()
