"""The example response of the OpenAPI document."""

from searchr1.gateway.example import EXAMPLE_RUN
from searchr1.gateway.responses.items import SOURCES, Json
from searchr1.gateway.responses.shape import response_of
from searchr1.gateway.runs.store.base import RunMeta

_ID = "resp_0123456789abcdef0123456789abcdef"
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
_META = RunMeta(
    id=_ID,
    kind="response",
    created=EXAMPLE_RUN.created,
    model=EXAMPLE_RUN.model,
    question=EXAMPLE_RUN.question,
    scope="",
    request={"fields": _FIELDS, "include": [SOURCES]},
)

EXAMPLE_RESPONSE = response_of(_META, EXAMPLE_RUN)
