"""The OpenAPI document: the framework's own, completed by what it can't know."""

import math
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from searchr1.gateway.errors import ErrorBody
from searchr1_client.events import RunStarted

TAGS = [
    {"name": "research", "description": "Runs as native events; stored runs to follow, cancel, replay and export."},
    {"name": "openai", "description": "What OpenAI's clients speak."},
    {"name": "operations", "description": "For operators and load balancers."},
]
KEY_SCHEME = "ApiKey"
"""What the document calls the API key."""
_WHEN = {
    400: "The request is wrong; the message says what to change.",
    401: "The API key is missing or wrong.",
    403: "The API key lacks the scope for it, or the server does not open this to anyone.",
    404: "There is no such model, run or response.",
    408: "The body did not arrive in time.",
    409: "It can't be done as the server is set up.",
    413: "The body is too large.",
    415: "The body is not JSON, does not say so, or is compressed.",
    429: "The API key is at one of its limits: the message says which, `Retry-After` for how long.",
    500: "An error of the server's own.",
    502: "The engine failed this run.",
    503: "The server or its engine is overloaded, starting or stopping: try again after `Retry-After` seconds.",
    504: "The engine gave no output within the run's deadline.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": description} for status, description in _WHEN.items()
}
"""Error responses of every route that takes a key."""
KEY_REUSED: dict[int | str, dict[str, Any]] = {
    422: {"model": ErrorBody, "description": "The `Idempotency-Key` came with another request before."}
}
"""Error response of the routes that take an idempotency key, beside ``ERRORS``."""
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "Number of the event in its run: what `Last-Event-ID` resumes after."},
        "event": {"type": "string", "description": "The event's type."},
        "data": {"type": "string", "description": "The event as JSON."},
    },
}
EVENT_STREAM: dict[str, Any] = {
    # Before OpenAPI 3.2 the schema of a stream is that of each event.
    "text/event-stream": {
        "schema": _EVENT,
        "example": {"id": "0", "event": RunStarted.model_fields["type"].default, "data": "{…}"},
    }
}
"""Content of a 200 that may be a stream instead of JSON."""
_LINKS = {
    "/v1/research": ("run_id", "$response.body#/id", "/v1/research/"),
    "/v1/research/replay": ("run_id", "$response.body#/id", "/v1/research/{run_id}"),
    "/v1/responses": ("response_id", "$response.body#/id", "/v1/responses/"),
    "/v1/models": ("name", "$response.body#/data/0/id", "/v1/models/"),
}
"""By path, what an answer names that other operations take: their parameter, where it stands, how their paths begin."""
_ANY_KEY: dict[str, list[str]] = {KEY_SCHEME: []}
_LARGEST_EXACT = 2**53
"""The framework holds bounds as floats, which are whole numbers beyond this one, but not all of them."""
_REQUEST_ID = {"description": "Names the request in the server's log.", "schema": {"type": "string"}}


def given(name: str) -> dict[str, Any]:
    """Return the schema of an object whose field ``name`` is there and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def describe(app: FastAPI, *, needs_key: bool) -> None:
    """Have ``app`` serve its complete document. Call it once all routes are there.

    ``needs_key`` says whether the server has API keys; without any, none has to be sent.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            built = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=app.openapi_tags
            )
            _complete(built, needs_key=needs_key)
            app.openapi_schema = built
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any], *, needs_key: bool) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                _drop_null(parameter["schema"])
            if not needs_key and _ANY_KEY in operation.get("security", ()):
                operation["security"].append({})
            _drop_validation_error(operation["responses"])
            for status, response in operation["responses"].items():
                if status.startswith(("4", "5")) and "content" in response:
                    # The framework gives errors the content type of the route's success.
                    response["content"] = {"application/json": next(iter(response["content"].values()))}
                response.setdefault("headers", {})["x-request-id"] = _REQUEST_ID
    _link(document["paths"])
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    _round_bounds_inward(document)


def _drop_validation_error(responses: dict[str, Any]) -> None:
    """Remove the framework's 422, which the server answers as a 400 in OpenAI's shape; leave one of a route's own."""
    if "HTTPValidationError" in str(responses.get("422", "")):
        responses.pop("422")


def _link(paths: dict[str, Any]) -> None:
    """Say which operations take what an answer names, for tools that go from one to the other."""
    for path, (parameter, source, prefix) in _LINKS.items():
        links = {
            operation["operationId"]: {"operationId": operation["operationId"], "parameters": {parameter: source}}
            for other, operations in paths.items()
            if other.startswith(prefix) and f"{{{parameter}}}" in other
            for operation in operations.values()
        }
        operation = paths[path].get("post") or paths[path]["get"]
        operation["responses"]["200"]["links"] = links


def _drop_null(schema: dict[str, Any]) -> None:
    """Take from a parameter's schema the null that the framework gives optional ones: a URL or header can't hold it."""
    found = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(found) == 1:
        del schema["anyOf"]
        schema |= found[0]


def _round_bounds_inward(node: Any) -> None:
    """Make the large bounds of integers ones that the server keeps: as floats they may be rounded outward."""
    if isinstance(node, list):
        for one in node:
            _round_bounds_inward(one)
    if not isinstance(node, dict):
        return
    for name in ("minimum", "maximum"):
        bound = node.get(name)
        if node.get("type") == "integer" and isinstance(bound, float) and abs(bound) > _LARGEST_EXACT:
            node[name] = int(math.nextafter(bound, 0))
    for one in node.values():
        _round_bounds_inward(one)
