"""Outputs of an export: the contract, and JSON Lines."""

from typing import BinaryIO, Protocol

from searchr1_client.events import Run


class Writer(Protocol):
    """A writer that takes runs one by one."""

    def write(self, run: Run) -> None:
        """Add a run that has a trajectory."""
        ...

    def close(self) -> None:
        """Write what is pending. The file itself stays open."""
        ...


class RunLinesWriter:
    """A writer of one run a line, as the gateway gives it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, run: Run) -> None:
        """See ``Writer.write``."""
        self._file.write(run.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        """See ``Writer.close``."""
