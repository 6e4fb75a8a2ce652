"""A response as the OpenAPI document shows it."""

from searchr1.gateway.responses.items import SOURCES, Json
from searchr1.gateway.responses.shape import response_of
from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client import events as wire

_ID = "resp_0123456789abcdef0123456789abcdef"
_QUESTION = "Which currency is used in Mali?"
_FIELDS: Json = {
    "tools": [{"type": "web_search"}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "store": True,
    "background": False,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "metadata": {},
}
_MALI = wire.WirePassage(
    index=1, title="Mali", url="https://atlas.example/mali", snippet="Mali uses the West African CFA franc.", score=7.1
)

EXAMPLE_RESPONSE = response_of(
    RunMeta(
        id=_ID,
        kind="response",
        created=1_760_000_000,
        model="searchr1-atlas",
        question=_QUESTION,
        scope="",
        request={"fields": _FIELDS, "include": [SOURCES]},
    ),
    wire.Run(
        id=_ID,
        created=1_760_000_000,
        model="searchr1-atlas",
        question=_QUESTION,
        status="completed",
        answer="West African CFA franc",
        citations=[wire.Citation(index=1, title=_MALI.title, url=_MALI.url, start=14, end=36)],
        steps=[
            wire.Step(
                turn=1,
                reasoning="I need the currency of Mali.",
                query="currency of Mali",
                passages=[_MALI],
                cache="miss",
                duration_ms=120.0,
            ),
            wire.Step(turn=2, reasoning="The passage names it."),
        ],
        usage=wire.Usage(
            prompt_tokens=150,
            completion_tokens=48,
            observation_tokens=60,
            reasoning_tokens=42,
            cached_tokens=144,
            turns=2,
            searches=1,
            duration_ms=900.0,
        ),
    ),
)
