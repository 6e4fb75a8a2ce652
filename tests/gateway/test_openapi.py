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


def document_of(**given: Any) -> dict[str, Any]:
    return create_app(Settings.model_validate({"model": MODEL, "retriever": "index:none", **given})).openapi()


def secured(document: dict[str, Any]) -> dict[str, Any]:
    """What each operation below /v1 says of keys."""
    return {
        f"{method} {path}": operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/v1/")
    }


def test_the_document_asks_for_a_key_where_the_server_does() -> None:
    closed = document_of(api_keys="a-key-that-is-long-enough")
    assert [name for name, said in secured(closed).items() if said != [{"ApiKey": []}]] == []
    assert [name for name, said in secured(DOCUMENT).items() if said != [{"ApiKey": []}, {}]] == []
    for document in (closed, DOCUMENT):
        assert document["paths"]["/admin/reload"]["post"]["security"] == [{"AdminKey": []}]


def test_no_parameter_is_said_to_be_null() -> None:
    parameters = [one for _, operation in OPERATIONS for one in operation.get("parameters", ())]
    assert any(not one["required"] for one in parameters)
    assert [one["name"] for one in parameters if "null" in str(one["schema"])] == []


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(one)


def test_bounds_of_integers_are_those_of_a_reader_that_has_floats_alone() -> None:
    bounds = [
        node[name]
        for node in nodes(DOCUMENT)
        if node.get("type") == "integer"
        for name in ("minimum", "maximum")
        if isinstance(node.get(name), int | float)
    ]
    assert any(abs(bound) > 2**62 for bound in bounds)
    assert [bound for bound in bounds if int(float(bound)) != bound or not -(2**63) < bound < 2**63] == []


def test_links_lead_to_operations_and_parameters_that_there_are() -> None:
    parameters = {
        operation["operationId"]: {one["name"] for one in operation.get("parameters", ())}
        for _, operation in OPERATIONS
    }
    links = [
        (name, link)
        for name, operation in OPERATIONS
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert {name for name, _ in links} >= {"POST /v1/research", "POST /v1/responses", "GET /v1/models"}
    assert [link for _, link in links if not link["parameters"].keys() <= parameters[link["operationId"]]] == []


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
