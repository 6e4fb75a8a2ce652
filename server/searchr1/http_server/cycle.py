"""One request and its answer on the wire: framing that each HTTP version knows, and an end that loses no answer."""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from searchr1.http_server import pieces
from searchr1.http_server.outbox import Outbox

_BODILESS = (204, 304)


class Cycle(RequestResponseCycle):
    """uvicorn's cycle, with its own framing of answers.

    HTTP/1.0 gets no chunks; there is one ``Connection`` header; a connection whose request has not arrived whole is
    not used again. ``on_close`` closes the connection. What is written goes through ``outbox``.
    """

    # Attributes that come late would give each answer a dict of its own.
    __slots__ = ("_has_body", "_until_close", "on_close", "outbox")

    on_close: Callable[[], None]
    outbox: Outbox
    _has_body: bool
    _until_close: bool

    async def send(self, message: Any) -> None:
        """See ASGI."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"the answer starts with {message['type']}")
            self._start(message["status"], message.get("headers", []))
        elif self.response_complete:
            raise RuntimeError(f"{message['type']} after the answer's end")
        else:
            self._write(message.get("body", b""), message.get("more_body", False))

    async def send_piece(self, piece: bytes) -> None:
        """Send a piece of a body whose head has been sent, and which goes on."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not (self.disconnected or self.response_complete):
            self._write(piece, more_body=True)

    def _start(self, status: int, given: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        # What still comes of the request would have to be read before the next one.
        self.keep_alive = self.keep_alive and not self.more_body
        self._has_body = self.scope["method"] != "HEAD" and status not in _BODILESS
        length: int | None = None
        content = [STATUS_LINE[status]]
        for name, value in [*self.default_headers, *given]:
            if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                raise RuntimeError(f"the header {name!r} can't be sent")
            name = name.lower()
            if name == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                continue
            content += [name, b": ", value, b"\r\n"]
        self._frame(length, content)
        content.append(b"\r\n")
        self.outbox.put(self.transport, b"".join(content))

    def _frame(self, length: int | None, content: list[bytes]) -> None:
        self.chunked_encoding = self._has_body and length is None and self.scope["http_version"] != "1.0"
        self._until_close = self._has_body and length is None and not self.chunked_encoding
        self.expected_content_length = length or 0 if self._has_body else 0
        if self.chunked_encoding:
            content.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            content.append(b"connection: close\r\n")

    def _write(self, body: bytes, more_body: bool) -> None:
        if not self._has_body:
            pass
        elif self.chunked_encoding:
            content = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            if not more_body:
                content.append(b"0\r\n\r\n")
            self.outbox.put(self.transport, b"".join(content))
        else:
            if not self._until_close:
                self._count(len(body), more_body)
            self.outbox.put(self.transport, body)
        if not more_body:
            pieces.withdraw(self.scope)  # It holds this object, too.
            self.outbox.flush()
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.on_close()
            self.on_response()

    def _count(self, num_bytes: int, more_body: bool) -> None:
        self.expected_content_length -= num_bytes
        if self.expected_content_length < 0 or (self.expected_content_length and not more_body):
            raise RuntimeError("the answer's length is not its Content-Length")


def answer(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    """Return a whole answer of JSON after which the connection closes."""
    lines = [STATUS_LINE[status]]
    length = b"%d" % len(body)
    closing = ((b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close"))
    lines += [b"%b: %b\r\n" % header for header in (*headers, *closing)]
    return b"".join([*lines, b"\r\n", body])
