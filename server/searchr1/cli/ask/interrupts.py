"""Ctrl-C between lines: it cuts waits short, but never a line in two."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """A context in which Ctrl-C is a ``KeyboardInterrupt``, which waits for the end of a ``held_back`` block.

    A second one that comes meanwhile does not wait. Only the main thread can do so, and only where Ctrl-C is Python's
    to handle: elsewhere nothing changes.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._held_back = False
        self._pending = False

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let the block come to its end before a ``KeyboardInterrupt``."""
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False
            if self._pending:
                self._pending = False
                raise KeyboardInterrupt

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        if not self._held_back or self._pending:
            raise KeyboardInterrupt
        self._pending = True
