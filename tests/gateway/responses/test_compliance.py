"""The compliance suite of Open Responses against the gateway: which of its cases pass, and why the others do not.

It is skipped where ``scripts/setup-open-responses`` has not put the suite into ``.open-responses``.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.stages import TurnsEngine, retriever
from tests.gateway.conftest import MODEL
from tests.gateway.threaded import threaded_stage

SUITE = Path(__file__).parents[3] / ".open-responses"
PASS = {
    "assistant-phase",
    "basic-response",
    "compact-missing-model",
    "compact-response",
    "multi-turn",
    "response-output-phase-schema",
    "system-prompt",
}
NO_WEB_SOCKET = "WebSocket connection failed"
FAIL = {
    "image-input": "HTTP 400",
    "streaming-response": "Event validation failed for response.reasoning_text.",
    "tool-calling": 'Expected output item of type "function_call"',
    "websocket-compact-new-chain": NO_WEB_SOCKET,
    "websocket-continuation": NO_WEB_SOCKET,
    "websocket-failed-continuation-evicts-cache": NO_WEB_SOCKET,
    "websocket-previous-response-not-found": NO_WEB_SOCKET,
    "websocket-reconnect-store-false-recovery": NO_WEB_SOCKET,
    "websocket-response": NO_WEB_SOCKET,
    "websocket-sequential-responses": NO_WEB_SOCKET,
}
"""What the suite says of each case that ADR 24 gives up."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (SUITE / ".setup").exists(), reason="no suite: scripts/setup-open-responses"),
]


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """The suite's results by the case."""
    with threaded_stage(engine=TurnsEngine(), retriever=retriever()) as stage:
        bun = [str(SUITE / "node_modules/.bin/bun"), "run", "bin/compliance-test.ts", "--json"]
        asked = ["--base-url", f"{stage.url}/v1", "--api-key", "none", "--model", MODEL]
        done = subprocess.run(bun + asked, cwd=SUITE / "suite", capture_output=True, text=True, timeout=240)
    assert done.stdout.startswith("{"), done.stderr
    return {result["id"]: result for result in json.loads(done.stdout)["results"]}


def test_these_cases_pass_and_no_others(results: dict[str, dict[str, Any]]) -> None:
    assert {case for case, result in results.items() if result["status"] == "passed"} == PASS
    assert results.keys() == PASS | FAIL.keys()


@pytest.mark.parametrize("case", FAIL)
def test_a_case_fails_for_the_reason_that_is_known(case: str, results: dict[str, dict[str, Any]]) -> None:
    errors = results[case]["errors"]
    assert errors
    assert all(FAIL[case] in error for error in errors)
