"""Server-sent events as vLLM writes them: the payload of each ``data:`` line, from raw bytes."""

from searchr1.errors import EngineError

_LF = 10


class SseSplitter:
    """Cuts a byte stream, in whatever pieces it arrives, into the payloads of its ``data:`` lines.

    vLLM writes each event as one such line, so a line is an event. Comments and other fields are skipped. A line longer
    than ``max_line_bytes`` raises ``EngineError``; no byte is looked at twice, however the line was cut.
    """

    __slots__ = ("_max_line_bytes", "_rest")

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads that they complete."""
        if not self._rest and data.startswith(b"data:") and data.find(b"\n") == len(data) - 2 and data[-1] == _LF:
            return [data[5:].strip()]  # One whole event, as most pieces are.
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        if rest:
            self._rest += rest
            if len(self._rest) > self._max_line_bytes:
                raise EngineError(f"the engine sent a line of more than {self._max_line_bytes} bytes")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
