"""What a request asked for and did not get, told in a response header: an answer must not look like more than it is."""

from collections.abc import Sequence
from typing import Any

from fastapi.responses import Response

from searchr1.gateway.metrics import Metrics

IGNORED_HEADER = "x-searchr1-ignored"
IGNORED_HEADERS: dict[str, Any] = {
    IGNORED_HEADER: {
        "description": "Fields of the request that were taken and changed nothing, such as `tools`.",
        "schema": {"type": "string"},
    }
}
"""For the OpenAPI document."""


def telling_ignored(response: Response, fields: Sequence[str], metrics: Metrics) -> Response:
    """Return ``response`` with the header that names ``fields``, and count them."""
    for field in fields:
        metrics.ignored_fields.labels(field).inc()
    if fields:
        response.headers[IGNORED_HEADER] = ", ".join(fields)
    return response
