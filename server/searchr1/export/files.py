"""Runs that were exported or saved earlier."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import TypeAdapter

from searchr1.errors import DatasetError
from searchr1.files import read_json_lines, refused
from searchr1_client.events import Run

_RUN = TypeAdapter(Run)


def read_runs(path: Path, on_bad: Callable[[DatasetError], None] = refused) -> Iterator[Run]:
    """Yield the runs of a file in its order. ``on_bad`` hears of what is no run; it is left out unless that raises.

    Raises:
        DatasetError: the file can't be read, or a line is no run; file and line are named.
    """
    return (run for _, run in read_json_lines(path, _RUN, on_bad))
