"""The OpenAPI document is complete, and whatever a request holds, it is answered without a server error."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from searchr1.gateway.app import create_app
from searchr1.gateway.routes.idempotency import HEADER
from searchr1.settings import Settings
from tests.gateway.conftest import MODEL
from tests.gateway.threaded import threaded_stage

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
METHODS = {"get", "post", "put", "delete", "patch"}

DOCUMENT: dict[str, Any] = create_app(Settings.model_validate({"model": MODEL, "retriever": "index:none"})).openapi()
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    if method in METHODS
]


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_every_operation_is_described(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["tags"]
    takes_a_key = any(parameter["name"] == HEADER for parameter in operation.get("parameters", ()))
    assert ("422" in operation["responses"]) == takes_a_key
    assert all("x-request-id" in response["headers"] for response in operation["responses"].values())
    if "/v1/" in name:
        assert operation["security"]
        for status in ("400", "401", "413"):
            content = operation["responses"][status]["content"]["application/json"]
            assert content["schema"]["$ref"].endswith("/ErrorBody")


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    # A small server: what is refused for its size is refused early.
    with threaded_stage(max_body_bytes=65_536, deadline_s=5) as stage:
        yield schemathesis.openapi.from_url(f"{stage.url}/openapi.json")


@pytest.mark.parametrize("name", [name for name, _ in OPERATIONS])
def test_no_request_makes_a_server_error(api: Any, name: str) -> None:
    method, path = name.split(" ")
    operation = api[path][method]

    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def answers(case: Any) -> None:
        response = case.call(timeout=30)
        assert response.headers["x-request-id"]
        # A deadline of no time at all is kept.
        is_late = response.status_code == 504 and response.json()["error"]["code"] == "deadline"
        case.validate_response(response, checks=CHECKS[1:] if is_late else CHECKS)

    answers()
