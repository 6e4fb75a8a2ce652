"""What Linux tells of a process: memory, CPU time, open files, connections."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process by its id."""

    pid: int

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(self._read("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_s(self) -> float:
        """User and system time."""
        fields = self._read("stat").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def family(self) -> list["Process"]:
        """The process and its children, such as workers."""
        children = self._read(f"task/{self.pid}/children").split()
        return [self, *(Process(int(pid)) for pid in children)]

    def files(self) -> list[str]:
        """Return what each open file is: a path, or ``socket:[inode]`` and the like."""
        found = []
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # Closed meanwhile.
                found.append(str(link.readlink()))
        return found

    def num_connected_to(self, port: int) -> int:
        """Return the number of its IPv4 connections to ``port``, of whatever state."""
        files = set(self.files())
        rows = [line.split() for line in self._read("net/tcp").splitlines()[1:]]
        return sum(int(row[2].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in files for row in rows)

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text("ascii")
