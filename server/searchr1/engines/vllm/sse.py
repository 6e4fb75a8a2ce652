"""Server-sent events as vLLM writes them: the payload of each ``data:`` line, from raw bytes."""


class SseSplitter:
    """Cuts a byte stream, in whatever pieces it arrives, into the payloads of its ``data:`` lines.

    vLLM writes each event as one such line, so a line is an event. Comments and other fields are skipped.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads that they complete."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
