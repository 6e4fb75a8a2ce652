"""Runs that were exported or saved earlier."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import TypeAdapter

from searchr1.files import read_json_lines
from searchr1_client.events import Run

_RUN = TypeAdapter(Run)


def read_runs(path: Path) -> Iterator[Run]:
    """Yield the runs of a JSON Lines file, one a line, in its order.

    Raises:
        DatasetError: the file can't be read, or a line is no run; file and line are named.
    """
    return (run for _, run in read_json_lines(path, _RUN))
