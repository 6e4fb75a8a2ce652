"""The heap of a process that trains on a CPU: what it frees stays with it."""

import subprocess
import sys

import pytest

from searchr1.trainer.heap import keep_freed_memory

pytestmark = pytest.mark.process

PROGRAM = """
import ctypes, pathlib, sys
from searchr1.trainer.heap import keep_freed_memory

def resident_mb():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096 // 10**6

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
before = resident_mb()
piece = libc.malloc(200_000_000)
libc.memset(piece, 1, 200_000_000)
libc.free(piece)
print(int(kept), resident_mb() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_stays_where_it_is_asked_to() -> None:
    found = {}
    for word in ("keep", "give"):
        command = [sys.executable, "-c", PROGRAM, word]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[word] = tuple(map(int, done.stdout.split()))
    assert found["keep"][0] == 1
    assert found["keep"][1] > 190
    assert found["give"][1] < 10


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
