"""Server-Sent Events as bytes: the one encoder of every stream that the gateway sends."""

from typing import Any

import msgspec
from fastapi.responses import JSONResponse

from searchr1.printable import plain_json
from searchr1_client.events import KnownEvent

HEARTBEAT = b": ping\n"
"""A comment line without a blank line after it: the one form that every OpenAI client skips."""
MOVED = b": the run goes on on another server; take its stream up after the last event\nretry: 500\n\n"
"""The last frame of a native stream that is to be taken up elsewhere: no event, so that readers count none."""
DONE = b"data: [DONE]\n\n"
"""The last frame of a chat completion's stream that did not break."""


def encode_json(payload: dict[str, Any]) -> bytes:
    """Return ``payload`` as compact JSON that is plain to every reader."""
    return plain_json(msgspec.json.encode(payload))


class JsonResponse(JSONResponse):
    """A response of JSON that is plain to every reader."""

    def render(self, content: Any) -> bytes:
        """See ``Response``."""
        return encode_json(content)


def encode_event(event: KnownEvent) -> bytes:
    """Return one native event's frame; ``id`` is the event's ``seq``."""
    return encode_frame(event.seq, event.type, event.model_dump_json().encode())


def encode_frame(seq: int, name: str, data: bytes) -> bytes:
    """Return the frame that ``encode_event`` returns, for an event whose number, type and JSON are at hand."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, name.encode(), plain_json(data))


def encode_named(name: str, payload: dict[str, Any]) -> bytes:
    """Return a frame with an ``event`` line, as OpenAI's Responses have it."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode_json(payload))


def encode_data(payload: dict[str, Any]) -> bytes:
    """Return a frame of one ``data:`` line alone: some clients of Chat Completions fail on ``id`` and ``event``."""
    return b"data: %b\n\n" % encode_json(payload)
