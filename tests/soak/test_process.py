"""What is read of a process, held against this one."""

import os
import socket
from pathlib import Path

from loadtests.soak.process import Process

ME = Process(os.getpid())


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


def test_memory_that_is_taken_is_seen() -> None:
    before = ME.rss_bytes
    taken = b"x" * 2**25
    assert ME.rss_bytes - before > 2**24, len(taken)


def test_computing_takes_time() -> None:
    before = ME.cpu_s
    while ME.cpu_s == before:
        sum(range(1000))
