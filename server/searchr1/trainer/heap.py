"""The heap of a process that trains on a CPU: freed memory stays in it.

A pass allocates and frees hundreds of megabytes in large pieces. The C library gets each from the system and gives it
back at once, and the system clears every page before it hands it out again: on a virtual machine at 2 GB/s, where
memory that is used again is written at 40.
"""

import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_LARGEST: Final = 2**31 - 1
"""More bytes than a piece has that is to stay."""
_NEVER: Final = -1


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees, for what it allocates next; return whether it does.

    The process stays as large as it ever was. It is for glibc alone; with another C library nothing changes. Threads
    that run already keep heaps of their own, so call it early.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # Heaps of threads can't grow beyond 64 MB, and get larger pieces from the system: there must be one heap alone.
    taken = [
        libc.mallopt(option, value)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _NEVER))
    ]
    return all(taken)
