"""The log: what a line holds, what it never holds, and how many lines many refusals make."""

import asyncio
import contextvars
import json
import logging
import re
import sys

import pytest

from searchr1.gateway import logs
from searchr1.gateway.log_lines import REQUEST_ID, RUN_ID, JsonFormatter, LineFormatter
from searchr1.gateway.logs import BurstLog
from searchr1.trace_context import TRACE_HEADERS
from tests.gateway.conftest import StageEngine, running_stage
from tests.gateway.test_failures import FailingEngine

QUESTION = "What is the airspeed of a swallow?"


def line(message: str, *arguments: object, **more: object) -> str:
    record = logging.LogRecord("searchr1.x", logging.WARNING, __file__, 1, message, arguments, None)
    record.__dict__.update(more)
    return LineFormatter().format(record)


@pytest.mark.parametrize(
    "url",
    [
        "http://svc:hunter2@engine:8000/v1",
        "https://hunter2@host",
        "redis://:hunter2@redis:6379/0",
        "rediss://u:p%40hunter2@h",
        "redis+sentinel://u:hunter2@a,b",
    ],
)
def test_credentials_in_urls_are_taken_out(url: str) -> None:
    assert "hunter2" not in line("engine unreachable: %s", url)
    try:
        raise ConnectionError(f"no way to {url}")
    except ConnectionError:
        assert "hunter2" not in line("failed", exc_info=sys.exc_info())


@pytest.mark.parametrize("text", ["a\nWARNING forged", "a\r\nb", "\x1b[31mred", "\x9b2J", "‮evil", "a\u2028b", "\x00"])
def test_a_line_stays_one_line_of_plain_text(text: str) -> None:
    written = line("search failed: %s", text)
    assert len(written.splitlines()) == 1
    assert written.isprintable()


async def test_lines_of_a_request_and_of_its_run_name_it(caplog: pytest.LogCaptureFixture) -> None:
    formatted: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            formatted.append(LineFormatter().format(record))

    kept = Kept()
    logging.getLogger("searchr1").addHandler(kept)
    try:
        async with running_stage(engine=FailingEngine(RuntimeError("bug"))) as stage:
            for number, body in enumerate([{"stream": True}, {}]):
                headers = {"x-request-id": f"mine-{number}"}
                await stage.client.post("/v1/research", json={"question": QUESTION, **body}, headers=headers)
    finally:
        logging.getLogger("searchr1").removeHandler(kept)
    for number in range(2):
        lines = [one for one in formatted if f"[request mine-{number}]" in one]
        assert len(lines) == 1, formatted
        assert "failed" in lines[0]
        assert "run run_" in lines[0]
    assert QUESTION not in "".join(formatted)


async def test_many_refusals_make_few_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logs, "BURST_S", 0.05)
    burst = BurstLog(logging.getLogger("searchr1.test"))
    REQUEST_ID.set("req_first")
    for _ in range(1000):
        burst.note("runs are refused: no slot")
    while len(caplog.records) < 2:  # noqa: ASYNC110 (the log has no event to wait for)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.15)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["runs are refused: no slot", "runs are refused: no slot: 999 more in 0.05 s"]
    burst.note("runs are refused: no slot")
    assert len(caplog.records) == 3


async def test_refused_keys_are_counted_and_logged_without_the_key(caplog: pytest.LogCaptureFixture) -> None:
    async with running_stage(api_keys="right-key") as stage:
        for headers in [{}, *[{"authorization": "Bearer wrong-key"}] * 5]:
            assert (await stage.client.get("/v1/models", headers=headers)).status_code == 401
        metrics = (await stage.client.get("/metrics")).text
    assert 'searchr1_keys_refused_total{reason="missing_api_key"} 1.0' in metrics
    assert 'searchr1_keys_refused_total{reason="invalid_api_key"} 5.0' in metrics
    assert caplog.text.count("keys are refused") == 2
    assert "-key" not in caplog.text


async def test_the_access_log_names_the_request_and_nothing_of_its_content(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running_stage(engine=StageEngine(), access_log=True) as stage:
        headers = {"authorization": "Bearer some-key"}
        await stage.client.post("/v1/research?key=in-query", json={"question": QUESTION}, headers=headers)
        await stage.client.get("/nothing%0aINFO forged")
    lines = [record.getMessage() for record in caplog.records if record.name == "searchr1.access"]
    assert lines[0].startswith("POST /v1/research 200 ")
    assert lines[1].startswith("GET /nothing%0AINFO%20forged 404 ")
    for word in (QUESTION, "some-key", "in-query"):
        assert word not in "".join(lines)


async def test_without_the_setting_there_is_no_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running_stage() as stage:
        await stage.client.get("/healthz")
    assert [record for record in caplog.records if record.name == "searchr1.access"] == []


def logged(message: str, *arguments: object, **more: object) -> dict[str, object]:
    record = logging.LogRecord("searchr1.x", logging.WARNING, __file__, 1, message, arguments, None)
    record.__dict__.update(more)
    written = JsonFormatter(process="worker 2").format(record)
    assert len(written.splitlines()) == 1
    found: dict[str, object] = json.loads(written)
    return found


def raised(error: BaseException, cause: BaseException | None = None) -> dict[str, object]:
    """What a traceback is logged with."""
    try:
        raise error from cause
    except type(error):
        return {"exc_info": sys.exc_info()}


def test_a_line_of_json_has_the_ids_of_its_request_run_and_trace() -> None:
    def told() -> dict[str, object]:
        REQUEST_ID.set("req_1")
        RUN_ID.set("run_2")
        TRACE_HEADERS.set({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
        return logged("the engine\nfailed: %s", 5, fields={"status": 200})

    found = contextvars.copy_context().run(told)
    at = found.pop("time")
    assert isinstance(at, str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert found == {
        "level": "warning",
        "logger": "searchr1.x",
        "message": "the engine\\nfailed: 5",
        "process": "worker 2",
        "request_id": "req_1",
        "run_id": "run_2",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "status": 200,
    }


def test_a_line_for_people_has_each_id_once() -> None:
    def told() -> str:
        REQUEST_ID.set("req_1")
        RUN_ID.set("run_2")
        return line("run run_2 failed")

    assert contextvars.copy_context().run(told).endswith("run run_2 failed [request req_1]")


@pytest.mark.parametrize(
    "error",
    [ValueError(QUESTION), KeyError(QUESTION), AssertionError(QUESTION), UnicodeError(QUESTION), Exception(QUESTION)],
)
def test_a_traceback_leaves_out_messages_that_may_quote(error: Exception) -> None:
    told = logged("it broke", **raised(RuntimeError("out of memory"), error))
    trace = str(told["traceback"])
    assert QUESTION not in json.dumps(told)
    assert QUESTION not in line("it broke", **raised(RuntimeError("out of memory"), error))
    assert trace.index(f"builtins.{type(error).__name__}: (its message is left out") < trace.index("It led to:")
    assert "builtins.RuntimeError: out of memory" in trace
    assert "in raised" in trace


def test_errors_side_by_side_are_told_one_by_one() -> None:
    trace = str(
        logged("it broke", **raised(ExceptionGroup("two", [OSError("no way"), ValueError(QUESTION)])))["traceback"]
    )
    assert "ExceptionGroup: two (2 sub-exceptions)" in trace
    assert "one of them: builtins.OSError: no way" in trace
    assert "one of them: builtins.ValueError: (its message is left out" in trace
    assert QUESTION not in trace


@pytest.mark.parametrize(
    "message",
    [
        f"future: <Task finished name='x' coro=<f() done> exception=ValueError('{QUESTION}')>",
        f"1 validation error for X\nquestion\n  Input should be 5 [type=int, input_value='{QUESTION}', input_type=str]",
    ],
)
def test_what_others_quote_is_cut_out_of_a_message(message: str) -> None:
    assert QUESTION not in line(message)
    assert QUESTION not in str(logged(message))


def test_token_ids_are_cut_out_of_a_message() -> None:
    assert line("refused: [151644, 872, 198, 5501]").endswith("refused: […]")
    assert line("1, 2 of 3 replicas, 12 s").endswith("1, 2 of 3 replicas, 12 s")


async def test_a_bug_is_logged_without_what_it_quotes(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError(f"can't split {QUESTION}")
    async with running_stage(engine=FailingEngine(error)) as stage:
        assert (await stage.client.post("/v1/research", json={"question": QUESTION})).status_code == 500
    told = [LineFormatter().format(record) for record in caplog.records]
    assert any("builtins.ValueError: (its message is left out" in one for one in told)
    assert QUESTION not in "".join(told)
