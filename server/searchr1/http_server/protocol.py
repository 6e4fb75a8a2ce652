"""HTTP/1 on one connection: uvicorn's protocol over httptools, within bounds, and with manners that clients count on.

* A request for an upgrade is declined by answering it as HTTP/1.1 (RFC 9110, 7.8): Java's client and ``curl --http2``
  ask for HTTP/2 with every first request.
* Requests are not pipelined: a second one that comes before the first is answered is dropped, and the connection
  closes after the answer. So there is always somebody reading, who sees the client leave.
* Each wait for the peer ends: for a request, for its headers, for it to read and to close.
"""

import asyncio
import urllib.parse
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from searchr1.flag import Flag
from searchr1.http_server import pieces
from searchr1.http_server.bounds import HttpBounds
from searchr1.http_server.cycle import Cycle, answer
from searchr1.http_server.flow import Flow
from searchr1.http_server.gate import Gate
from searchr1.http_server.outbox import Outbox

_RETRY_AFTER = (b"retry-after", b"2")
_UPGRADE_TOKENS = frozenset({b"upgrade", b"http2-settings"})
_NO_PIPELINE: Final = deque[Any]()
"""What the base class would queue pipelined requests in: one for all connections, as it stays empty."""
_BUSY = (503, "The server has as many connections as it takes; try again shortly.", "overloaded")


class _RefusedError(Exception):
    """A request that is not read on: ``args`` are status, message and code."""


class _PipelinedError(Exception):
    """A request that came before the one before it was answered."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection. Use ``protocol_class`` to make the class of a server."""

    # The base has so many attributes that a few more would give each connection a dict of its own, a kilobyte of it.
    __slots__ = (
        "_awaits_head",
        "_has_parsed",
        "_head_bytes",
        "_in_head",
        "_is_deaf",
        "_is_extra",
        "_num_unparsed",
        "_timer",
    )

    bounds: ClassVar[HttpBounds]
    gate: ClassVar[Gate]
    outbox: ClassVar[Outbox]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.pipeline = _NO_PIPELINE
        self._timer: asyncio.TimerHandle | None = None
        self._is_extra = False
        self._is_deaf = False
        """Whatever still comes is dropped."""
        self._in_head = False
        self._awaits_head = False
        """The timer is that of the headers that have begun."""
        self._has_parsed = False
        """The bytes at hand ended headers, or were of a body."""
        self._num_unparsed = 0
        """Bytes of which the parser has made nothing yet: it may hold them all."""
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self._set_timer(self.bounds.header_timeout_s, self._give_up)
        self._is_extra = not self.gate.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._stop_timer()
        self.gate.leave(self)
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close at once: others need the place."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Close once the answer under way, if there is one, has been sent."""
        self._is_deaf = self._is_deaf or self._is_idle()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._is_deaf:
            return
        self._has_parsed = False
        self._parse(data)
        if self._has_parsed:
            self._num_unparsed = 0
        else:
            self._num_unparsed += len(data)
            if self._num_unparsed > self.bounds.max_header_bytes and not self._is_deaf:
                self._refuse(*self._head_too_large())
        if self._in_head and not self._awaits_head and not self._is_deaf:
            self._awaits_head = True
            self._set_timer(self.bounds.header_timeout_s, self._give_up)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            reason = error.__context__
            if isinstance(reason, _PipelinedError):
                self.cycle.keep_alive = False
                self._is_deaf = True
            elif isinstance(reason, _RefusedError):
                self._refuse(*reason.args)
            else:
                self.logger.debug("A request is no HTTP: %s", error)
                self._refuse(400, "The request is not valid HTTP/1.1.", "bad_request")

    # Upgrades

    def _should_upgrade(self) -> bool:
        return bool(self.scope["method"] == "GET" and super()._should_upgrade())

    def _upgrade(self, rest: bytes) -> None:
        """Hand the connection over to WebSockets, or go on with the request as if it asked for nothing."""
        if self._should_upgrade():
            self._stop_timer()
            self.gate.leave(self)
            self.handle_websocket_upgrade()
        elif self.scope["method"] == "CONNECT":
            self._refuse(405, "This server is no proxy.", "method_not_allowed")
        else:
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._parse(head + rest)

    def _head_without_upgrade(self) -> bytes:
        version = self.scope["http_version"].encode()
        lines = [b"%b %b HTTP/%b\r\n" % (self.scope["method"].encode(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token.lower() not in _UPGRADE_TOKENS)
            if name not in (b"upgrade", b"http2-settings") and (value or name != b"connection"):
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join([*lines, b"\r\n"])

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Begin a request. Its parts come in the callbacks below."""
        if not self._is_idle():
            raise _PipelinedError
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self.url += url
        if len(self.url) > self.bounds.max_target_bytes:
            message = f"The request's target is over {self.bounds.max_target_bytes} bytes."
            raise _RefusedError(414, message, "uri_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which is dropped."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.bounds.max_header_bytes or len(self.headers) >= self.bounds.max_headers:
            raise _RefusedError(*self._head_too_large())
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the app on the request."""
        version = self.parser.get_http_version()
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        if self.parser.should_upgrade():
            return
        self._in_head, self._has_parsed = False, True
        self._stop_timer()
        self.gate.work(self)
        self._set_target(scope)
        is_served = not self._is_extra or scope["path"] in self.bounds.probes
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=Flag(),  # type: ignore[arg-type]
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self._is_extra,
            on_response=self.on_response_complete,
        )
        self.cycle.on_close, self.cycle.outbox = self._close, self.outbox
        pieces.offer(scope, self.cycle.send_piece)
        self._start_asgi_task(self.cycle, self.app if is_served else self._refuse_as_app)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._has_parsed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body."""
        if not self._in_head:
            super().on_message_complete()

    def _set_target(self, scope: Any) -> None:
        try:
            url = httptools.parse_url(self.url)
            raw_path = b"*" if self.url == b"*" else url.path or b"/"
            path = raw_path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
            raise _RefusedError(400, "The request's target is not a valid path.", "bad_request") from error
        scope["path"] = self.root_path + (urllib.parse.unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""

    # Ends

    def on_response_complete(self) -> None:
        """Wait for the next request, if one may come."""
        self.server_state.total_requests += 1
        self.gate.wait(self)
        if self._is_deaf or self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._awaits_head = False
        self._set_timer(self.bounds.keep_alive_s, self._give_up)

    async def _refuse_as_app(self, _scope: Any, _receive: Any, send: Any) -> None:
        status, *said = _BUSY
        body = self.bounds.refusal(status, *said)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), _RETRY_AFTER]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer what is no whole request, and close."""
        if not self._is_idle():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        body = self.bounds.refusal(status, message, code)
        self.transport.write(answer(status, body, *self.server_state.default_headers))
        self._linger()

    def _head_too_large(self) -> tuple[int, str, str]:
        bounds = self.bounds
        message = f"The headers are over {bounds.max_header_bytes} bytes, or more than {bounds.max_headers}."
        return 431, message, "headers_too_large"

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        """End the wait for a request."""
        if self._in_head:
            message = f"The headers did not arrive within {self.bounds.header_timeout_s:g} s."
            self._refuse(408, message, "request_timeout")
        else:
            self._close()

    def _close(self) -> None:
        """Close once what was written has been read, within bounds."""
        if self._is_deaf or (self.cycle is not None and self.cycle.more_body):
            self._linger()
            return
        self._is_deaf = True
        self.transport.close()
        # An answer that nobody reads would keep the connection.
        self._set_timer(self.bounds.send_timeout_s, self.transport.abort)

    def _linger(self) -> None:
        """Close for writing, and read on a little: closing on unread bytes would take the answer from the peer."""
        self._is_deaf = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_timer(self.bounds.linger_s, self.transport.abort)

    def _set_timer(self, after_s: float, then: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(after_s, then)

    def _stop_timer(self) -> None:
        self._awaits_head = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_class(bounds: HttpBounds) -> type[BoundedProtocol]:
    """Return the protocol of one server, whose connections count together."""
    members = {"__slots__": (), "bounds": bounds, "gate": Gate(bounds.max_connections), "outbox": Outbox()}
    return type("BoundedProtocol", (BoundedProtocol,), members)
