"""What is read of a process, held against this one."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from loadtests.soak.process import Process

ME = Process(os.getpid())
TAKES_MEMORY = """
import mmap
print(flush=True), input()
taken = mmap.mmap(-1, 2**25)
taken.write(b"x" * 2**25)
print(flush=True), input()
"""


def test_an_open_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert str(path) not in ME.files()
    with path.open("w"):
        assert str(path) in ME.files()
    assert str(path) not in ME.files()


def test_connections_to_a_port_are_counted_and_not_those_from_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert ME.num_connected_to(port) == 0
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            with accepted:
                assert ME.num_connected_to(port) == 1


@pytest.mark.process
def test_memory_that_is_taken_is_seen() -> None:
    # In a process of its own and mapped anew: this one may have freed as much before, and be given that again.
    with subprocess.Popen([sys.executable, "-c", TAKES_MEMORY], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        seen = []
        while child.stdout.readline():
            seen.append(Process(child.pid).rss_bytes)
            child.stdin.write(b"\n")
            child.stdin.flush()
    before, after = seen
    assert 2**25 <= after - before < 2**26


def test_computing_takes_time() -> None:
    before = ME.cpu_s
    while ME.cpu_s == before:
        sum(range(1000))
