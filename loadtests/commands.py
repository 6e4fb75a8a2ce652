"""Running a load test that has commands of its own."""

import argparse
import sys

from searchr1.errors import SearchR1Error


def run_command(parser: argparse.ArgumentParser, name: str) -> None:
    """Call ``do`` of the command that was chosen; what a user can mend is one line, which begins with ``name``."""
    args = parser.parse_args()
    try:
        args.do(args)
    except (SearchR1Error, ValueError) as error:
        sys.exit(f"{name}: {error}")
