"""Start and stop of the gateway's process: what clients see in each phase, whatever they wait for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from searchr1.errors import ConfigurationError
from searchr1.gateway import process
from searchr1.gateway.access.admission import Admission
from searchr1.gateway.app import create_app
from searchr1.gateway.failures import RUN_FAILURES
from searchr1.gateway.runs.drive import RunDrive, stop_runs
from searchr1.gateway.served_model import ServedModel, ServedModels
from searchr1.gateway.services import Services
from searchr1.retrieval.layer import SearchLayer
from searchr1.settings import Settings
from searchr1.sockets import bind
from tests.gateway.conftest import (
    MODEL,
    SEARCH_TURN,
    StageEngine,
    StageRetriever,
    byte_tokenizer,
    eventually,
    running_stage,
    sse_payloads,
)
from tests.gateway.test_failures import QUESTION, SURFACES, FailingEngine

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("turns", [[], [SEARCH_TURN]], ids=["silent", "after some output"])
@pytest.mark.parametrize("surface", SURFACES)
async def test_runs_that_are_ended_say_that_the_server_stops(
    surface: str, turns: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, body = SURFACES[surface]
    num_choices = body.get("n", 1)
    engine = FailingEngine(None, turns * num_choices)
    async with running_stage(engine=engine) as stage:
        asking = asyncio.create_task(stage.client.post(path, json=body))
        await eventually(lambda: engine.num_failing == num_choices)
        assert stop_runs(stage.services) == num_choices
        answer = await asking
        await eventually(lambda: stage.services.default.seats.num_running == 0)
        assert not stage.services.under_way
        metrics = stage.services.metrics.render().decode()
    assert RUN_FAILURES["stopping"].message in answer.text
    if body.get("stream") and turns:
        last = json.loads(sse_payloads(answer.text)[-1])
        assert "error" in last or last["type"] in ("run.failed", "response.failed")
    else:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "stopping"
        assert "retry-after" in answer.headers
    assert 'searchr1_runs_failed_total{code="stopping",model="test-model"}' in metrics
    assert "Traceback" not in caplog.text


async def test_a_run_that_is_ended_twice_or_by_two_at_once_ends_once() -> None:
    async with running_stage(engine=StageEngine(hold=asyncio.Event())) as stage:
        asking = asyncio.create_task(stage.client.post("/v1/research", json={"question": QUESTION, "stream": True}))
        await eventually(lambda: stage.engine.num_open == 1)
        [run] = stage.services.under_way
        assert isinstance(run, RunDrive)
        run_id = run._run_id
        stop_runs(stage.services)
        stop_runs(stage.services)
        cancelled = await stage.client.post(f"/v1/research/{run_id}/cancel")
        assert cancelled.json()["status"] in ("failed", "cancelled")
        await asking
        log = await stage.client.get(f"/v1/research/{run_id}/events")
        types = [json.loads(data)["type"] for data in sse_payloads(log.text)]
        assert sum(kind in ("run.failed", "run.completed") for kind in types) == 1
        assert stage.engine.num_open == 0


class Serving:
    """A gateway served by ``process`` in this program, which takes this program's signals."""

    def __init__(self, url: str, engine: StageEngine, task: "asyncio.Task[None]", ops_url: str = "") -> None:
        self.url, self.engine, self.task = url, engine, task
        self.ops_url = ops_url
        self.client = httpx.AsyncClient(base_url=url, timeout=30)

    async def probe(self, path: str = "/readyz") -> httpx.Response:
        """Ask on a connection of its own."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            return await client.get(path)

    async def until(self, condition: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Probe until the answer is as ``condition`` has it."""
        while not condition(answer := await self.probe()):  # noqa: ASYNC110 (the server has no event)
            await asyncio.sleep(0.01)
        return answer


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch,
    engine: StageEngine,
    *,
    opened: asyncio.Event | None = None,
    error: Exception | None = None,
    closing: Callable[[], Awaitable[None]] | None = None,
    **given: Any,
) -> AsyncIterator[Serving]:
    """Serve ``engine``; with ``opened``, services open once it is set, and fail to with ``error``.

    They close with ``closing``.
    """
    settings = Settings.model_validate({"model": MODEL, "retriever": "index:none", "port": 0, **given})
    ports: list[int] = []

    @asynccontextmanager
    async def open_services(_: Settings) -> AsyncIterator[Services]:
        if opened is not None:
            await opened.wait()
        if error is not None:
            raise error
        tokenizer, search = byte_tokenizer(), SearchLayer(StageRetriever())
        model = ServedModel(settings, tokenizer, engine, Admission(settings, tokenizer, search))
        yield Services(settings, ServedModels([model]), search)
        if closing is not None:
            await closing()

    def bind_and_tell(host: str, port: int) -> Any:
        listener = bind(host, port)
        ports.append(listener.getsockname()[1])
        return listener

    monkeypatch.setattr(process, "create_app", lambda s: create_app(s, open_services=open_services))
    monkeypatch.setattr(process, "bind", bind_and_tell)
    loop, task = asyncio.get_running_loop(), asyncio.create_task(process._serve(settings))
    try:
        await eventually(lambda: len(ports) > ("ops_port" in given))
        url, ops_url = (f"http://127.0.0.1:{port}" for port in (ports[0], ports[-1]))
        yield Serving(url, engine, task, ops_url)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def test_probes_are_answered_before_the_engine_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = asyncio.Event()
    async with serving(monkeypatch, StageEngine(), opened=opened) as server:
        starting = await server.until(lambda answer: answer.status_code == 503)
        assert starting.json()["reason"] == "starting"
        assert (await server.probe("/healthz")).status_code == 200
        assert (await server.probe("/")).status_code == 200
        early = await server.client.post("/v1/research", json={"question": QUESTION})
        assert (early.status_code, early.json()["error"]["code"]) == (503, "starting")
        opened.set()
        await server.until(lambda answer: answer.status_code == 200)
        assert (await server.client.post("/v1/research", json={"question": QUESTION})).status_code == 200
        await server.client.aclose()


async def test_a_start_that_fails_ends_the_server_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = asyncio.Event()
    async with serving(monkeypatch, StageEngine(), opened=opened, error=ConfigurationError("no such model")) as server:
        await server.until(lambda answer: answer.status_code == 503)
        opened.set()
        with pytest.raises(ConfigurationError, match="no such model"):
            await server.task
        with pytest.raises(httpx.ConnectError):
            await server.probe()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_the_start_ends_it(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    async with serving(monkeypatch, StageEngine(), opened=asyncio.Event()) as server:
        await server.until(lambda answer: answer.status_code == 503)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        with pytest.raises(asyncio.CancelledError):
            await server.task


async def test_after_sigterm_requests_are_taken_while_the_balancer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_SAME_SIGNAL_S", 0.0)
    async with serving(monkeypatch, StageEngine(), drain_s=1000) as server:
        await server.until(lambda answer: answer.status_code == 200)
        os.kill(os.getpid(), signal.SIGTERM)
        told = await server.until(lambda answer: answer.status_code == 503)
        assert told.json()["reason"] == "stopping"
        assert (await server.probe("/healthz")).status_code == 200
        assert (await server.client.post("/v1/research", json={"question": QUESTION})).status_code == 200
        await server.client.aclose()
        os.kill(os.getpid(), signal.SIGTERM)  # A second one ends the phase.
        await server.task
        with pytest.raises(httpx.ConnectError):
            await server.probe()


async def test_the_operators_port_is_shut_before_services_close(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    async def closing() -> None:
        try:
            told.append((await server.client.get(f"{server.ops_url}/healthz")).status_code)
        except httpx.ConnectError:
            told.append("nobody listens")

    async with serving(monkeypatch, StageEngine(), closing=closing, ops_port=0, drain_s=0) as server:
        await server.until(lambda answer: answer.status_code == 200)
        held = await server.client.get(f"{server.ops_url}/healthz")  # Its connection is kept alive.
        assert held.status_code == 200
        os.kill(os.getpid(), signal.SIGTERM)
        await server.task
        await server.client.aclose()
    assert told == ["nobody listens"]


@pytest.mark.parametrize("surface", [name for name in SURFACES if "background" not in name])
async def test_a_run_at_the_end_of_the_grace_gets_its_last_event(
    surface: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, body = SURFACES[surface]
    engine = FailingEngine(None, [SEARCH_TURN] * body.get("n", 1))
    async with serving(monkeypatch, engine, drain_s=0, shutdown_grace_s=0.3) as server:
        await server.until(lambda answer: answer.status_code == 200)
        asking = asyncio.create_task(server.client.post(path, json=body))
        await eventually(lambda: engine.num_failing == body.get("n", 1))
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        answer = await asking
        await server.client.aclose()
        await server.task
    assert RUN_FAILURES["stopping"].message in answer.text
    assert "Traceback" not in caplog.text
    assert "CancelledError" not in caplog.text


async def test_a_connection_that_does_not_end_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(process, "stop_runs", lambda _: 0)  # As if the last words did not get through.
    engine = StageEngine(hold=asyncio.Event())
    async with serving(monkeypatch, engine, drain_s=0, shutdown_grace_s=0.1) as server:
        await server.until(lambda answer: answer.status_code == 200)
        body = {"question": QUESTION, "stream": True}
        asking = asyncio.create_task(server.client.post("/v1/research", json=body))
        await eventually(lambda: engine.num_open == 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await server.task
        with pytest.raises(httpx.RemoteProtocolError):
            await asking
        await server.client.aclose()
    assert engine.num_open == 0
    assert "Traceback" not in caplog.text


@pytest.mark.process
@pytest.mark.parametrize("num_signals", [1, 2, 5])
def test_the_command_ends_without_a_traceback(tmp_path: Path, num_signals: int) -> None:
    script = tmp_path / "script.txt"
    script.write_text("<answer> Bamako </answer>\n", encoding="utf-8")
    given = {
        "ENGINE": "scripted",
        "MODEL": str(script),
        "TOKENIZER": str(ROOT / "server" / "searchr1" / "demo" / "checkpoint"),
        "RETRIEVER": "http://127.0.0.1:9/retrieve",
        "PORT": "0",
        "DRAIN_S": "0.1",
    }
    environment = {**os.environ, **{f"SEARCHR1_{name}": value for name, value in given.items()}}
    command = [sys.executable, "-m", "searchr1.cli", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            lines = []
            for line in server.stderr:
                lines.append(line)
                if "Serving" in line:
                    break
            url = lines[-1].split(" at ")[1].split()[0]
            assert httpx.post(f"{url}/v1/research", json={"question": QUESTION}).json()["answer"] == "Bamako"
            for _ in range(num_signals):
                with suppress(ProcessLookupError):
                    server.send_signal(signal.SIGTERM)
            rest = server.stderr.read()
            assert server.wait() == 0
        finally:
            server.kill()
    assert "Traceback" not in rest
    assert "stopping" in rest
    assert "INFO:" not in "".join(lines) + rest, "one format for all loggers"
