"""Server-Sent Events as bytes: the one encoder of every stream that the gateway sends."""

from typing import Any

import msgspec
from fastapi.responses import JSONResponse

from searchr1_client.events import KnownEvent

HEARTBEAT = b": ping\n"
"""A comment line without a blank line after it: the one form that every OpenAI client skips."""
DONE = b"data: [DONE]\n\n"
"""The last frame of a chat completion's stream that did not break."""

_LINE_BREAKS = (("\u2028".encode(), b"\\u2028"), ("\u2029".encode(), b"\\u2029"), ("\x85".encode(), b"\\u0085"))


def encode_json(payload: dict[str, Any]) -> bytes:
    """Return ``payload`` as compact JSON, on one line for every reader of lines."""
    return one_line(msgspec.json.encode(payload))


def one_line(data: bytes) -> bytes:
    """Return JSON with the line breaks that Unicode knows beyond ASCII escaped: they may stand raw only in strings.

    Some clients split a stream at them as at a newline.
    """
    if data.isascii():
        return data
    for raw, escaped in _LINE_BREAKS:
        if raw in data:
            data = data.replace(raw, escaped)
    return data


class JsonResponse(JSONResponse):
    """A response of one line of JSON."""

    def render(self, content: Any) -> bytes:
        """See ``Response``."""
        return encode_json(content)


def encode_event(event: KnownEvent) -> bytes:
    """Return one native event's frame; ``id`` is the event's ``seq``."""
    return encode_logged(event, event.model_dump_json().encode())


def encode_logged(event: KnownEvent, data: bytes) -> bytes:
    """Return the frame that ``encode_event`` returns, for an event whose JSON is at hand."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), one_line(data))


def encode_named(name: str, payload: dict[str, Any]) -> bytes:
    """Return a frame with an ``event`` line, as OpenAI's Responses have it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode_json(payload))


def encode_data(payload: dict[str, Any]) -> bytes:
    """Return a frame of one ``data:`` line alone: some clients of Chat Completions fail on ``id`` and ``event``."""
    return b"data: %b\n\n" % encode_json(payload)
