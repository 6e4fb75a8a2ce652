"""Helpers of the tests of Responses: runs as event lists, and OpenAI's own types to check against."""

from collections.abc import Sequence
from typing import Any

from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client import events as wire

KEY = "0" * 31 + "1"
RESPONSE_ID = f"resp_{KEY}"
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)
ITEM_LIST: TypeAdapter[Any] = TypeAdapter(ResponseItemList)

OPEN_RESPONSES_FIELDS = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "user", "usage"),
    *("max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier"),
    "prompt_cache_key",
}
"""Fields that Open Responses requires of a response object."""


def checked(adapter: TypeAdapter[Any], value: Any) -> Any:
    """``value`` in OpenAI's type. Raises where that type would have to guess, or lacks a field that ``value`` has."""
    parsed = adapter.validate_python(value)
    unknown = [name for name in _extras(parsed) if name not in KNOWN_EXTRAS]
    assert not unknown, unknown
    return parsed


KNOWN_EXTRAS = {"num_searches", "results", "presence_penalty", "frequency_penalty", "store", "logprobs"}
"""Fields that OpenAI's types do not have: ours, and those that Open Responses requires."""


def _extras(value: Any) -> list[str]:
    if isinstance(value, BaseModel):
        own = list(value.model_extra or {})
        return own + [name for field in type(value).model_fields for name in _extras(getattr(value, field))]
    if isinstance(value, list | tuple):
        return [name for one in value for name in _extras(one)]
    return []


def meta(**request: Any) -> RunMeta:
    """A stored response with the usual request."""
    fields = {
        "background": False,
        "store": True,
        "tools": [{"type": "web_search"}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": request.pop("summary", None)},
        "metadata": {},
    }
    return RunMeta(
        id=RESPONSE_ID,
        kind="response",
        created=1_700_000_000,
        model="m",
        question="q?",
        scope="k:",
        request={"fields": fields, "input": [], "turns": [["user", "q?"]], "include": [], **request},
    )


def types_of(events: Sequence[dict[str, Any]]) -> list[str]:
    """Their types, without the prefix that they all have."""
    return [event["type"].removeprefix("response.") for event in events]


class Script:
    """Writes a run's native events with the numbers that they need."""

    def __init__(self) -> None:
        self.events: list[wire.KnownEvent] = []
        self._say(wire.RunStarted, 0, model="m", question="q?")

    def think(self, turn: int, *texts: str) -> "Script":
        for text in texts:
            self._say(wire.ThinkDelta, turn, text=text)
        return self

    def search(self, turn: int, query: str, *passages: wire.WirePassage) -> "Script":
        self._say(wire.SearchStarted, turn, query=query)
        return self._say(
            wire.SearchCompleted, turn, query=query, passages=list(passages), cache="miss", duration_ms=1.0
        )

    def search_fails(self, turn: int, query: str) -> "Script":
        self._say(wire.SearchStarted, turn, query=query)
        error = wire.WireError(code="timeout", message="too slow")
        return self._say(wire.SearchFailed, turn, query=query, error=error, duration_ms=1.0)

    def search_starts(self, turn: int, query: str) -> "Script":
        return self._say(wire.SearchStarted, turn, query=query)

    def invalid(self, turn: int) -> "Script":
        self._say(wire.AnswerDelta, turn, text="void")
        return self._say(wire.ActionInvalid, turn, reason="no_action")

    def answer(self, turn: int, text: str, *citations: wire.Citation) -> "Script":
        self._say(wire.AnswerDelta, turn, text=text)
        return self._say(wire.AnswerCompleted, turn, text=text, citations=list(citations))

    def ends(self, turn: int, status: wire.RunStatus = "completed") -> "Script":
        return self._say(wire.RunCompleted, turn, status=status, usage=USAGE)

    def fails(self, turn: int) -> "Script":
        error = wire.WireError(code="engine_error", message="it broke")
        return self._say(wire.RunFailed, turn, error=error, usage=USAGE)

    def _say(self, kind: type[Any], turn: int, **fields: Any) -> "Script":
        self.events.append(kind(seq=len(self.events), run_id=RESPONSE_ID, turn=turn, t_ms=1.0, **fields))
        return self


USAGE = wire.Usage(
    prompt_tokens=10,
    completion_tokens=20,
    observation_tokens=5,
    reasoning_tokens=18,
    cached_tokens=90,
    turns=2,
    searches=1,
    duration_ms=2500.0,
)
MALI = wire.WirePassage(index=1, title="Mali", url="https://mali.example", snippet="Mali uses the franc.", score=1.0)
NAMED = wire.WirePassage(index=2, title="Chad", url=None, snippet="Chad uses a franc.", score=0.5)
CITATION = wire.Citation(index=1, title="Mali", url="https://mali.example", start=14, end=19)
CITATION_BY_NAME = wire.Citation(index=2, title="Chad", url=None, start=12, end=17)
