"""Frames of a streamed chat completion. Reasoning is most of them, and is filled into a frame that is encoded once."""

import msgspec

from searchr1.gateway.chat.shape import TEXT_MARK, ChatShape
from searchr1.gateway.sse import encode_data
from searchr1.printable import plain_json
from searchr1_client.events import KnownEvent, ThinkDelta
from searchr1_client.fold import RunFold

_MARK = msgspec.json.encode(TEXT_MARK)


class ChatFrames:
    """The frames of one completion, in the shape that ``shape`` gives its chunks."""

    def __init__(self, shape: ChatShape) -> None:
        self._shape = shape
        self._reasoning: dict[int, list[bytes]] = {}
        """By choice: a frame of reasoning, cut where its text stands."""

    def frame(self, index: int, event: KnownEvent, fold: RunFold) -> bytes | None:
        """Return the frame that an event adds to choice ``index``, or None; see ``ChatShape.chunk``."""
        if type(event) is ThinkDelta:
            return plain_json(msgspec.json.encode(event.text)).join(self._around_reasoning(index))
        chunk = self._shape.chunk(index, event, fold)
        return None if chunk is None else encode_data(chunk)

    def _around_reasoning(self, index: int) -> list[bytes]:
        around = self._reasoning.get(index)
        if around is None:
            around = self._reasoning[index] = encode_data(self._shape.reasoning_template(index)).split(_MARK)
        return around
