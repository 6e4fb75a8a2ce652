"""Several workers on one port: as processes, with an engine and a Redis over real sockets."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from loadtests.processes import free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import ConfigurationError
from searchr1.gateway.workers import delay_before, part_of
from searchr1.settings import Settings
from searchr1.sockets import bind, bind_shared, join_shared
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, serve_fake_vllm
from tests.gateway.conftest import eventually
from tests.support.redis_server import RedisServer

ASK = {"question": "What is the capital of Mali?"}
SAID = ["<think> It is Bamako, as far as I know. </think>", "<answer> Bamako", " </answer>"]
GIVEN = {"model": MODEL, "retriever": "index:none", "engine_url": "http://e:1", "redis_url": "redis://r:1"}


@dataclass
class Workers:
    """A gateway of several workers."""

    client: httpx.AsyncClient
    """Makes a connection for each request."""
    pid: int
    log: Path
    engine: FakeVllm

    @property
    def pids(self) -> dict[int, str]:
        """The worker processes that there are, with their command lines."""
        found = {}
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("utf-8").split():
            with contextlib.suppress(FileNotFoundError):
                command = Path(f"/proc/{pid}/cmdline").read_text("utf-8").replace("\0", " ")
                if "spawn_main" in command:
                    found[int(pid)] = command
        return found

    @property
    def served(self) -> Counter[str]:
        """Number of runs by the worker that took them, from the log."""
        return Counter(
            re.findall(r"\[(worker \d)\] searchr1.access: POST /v1/research 200", self.log.read_text("utf-8"))
        )

    async def ask_many(self, number: int) -> list[httpx.Response | BaseException]:
        """Ask so many times at once."""
        asking = (self.client.post("/v1/research", json=ASK) for _ in range(number))
        return await asyncio.gather(*asking, return_exceptions=True)

    async def metric(self, sample: str) -> float:
        """Return a sample of the metrics, 0 where it is not there."""
        text = (await self.client.get("/metrics")).text
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def environment_of(**given: object) -> dict[str, str]:
    """The variables of a gateway, with ``given`` among them."""
    settings = {
        "MODEL": MODEL,
        "TOKENIZER": str(CHECKPOINT),
        "RETRIEVER": "http://127.0.0.1:9/retrieve",
        "DRAIN_S": "0.1",
        "ACCESS_LOG": "1",
        "WORKERS": "2",
        **given,
    }
    return {f"SEARCHR1_{name}": str(value) for name, value in settings.items()}


@asynccontextmanager
async def served_by_workers(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Workers]:
    """Run the command with two workers before an engine that always says the same."""
    tokenizer = Tokenizer.load(str(CHECKPOINT))

    def model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
        pieces = [Chunk(piece, tuple(tokenizer.encode(piece))) for piece in SAID]
        return [*pieces[:-1], Chunk(pieces[-1].text, pieces[-1].token_ids, finish="stop")]

    port, log = free_port(), tmp_path / "log"
    async with serve_fake_vllm((), encode=tokenizer.encode, model=model) as engine:
        engine.max_model_len = 8192
        environment = environment_of(REDIS_URL=redis.url, ENGINE_URL=engine.url)
        command = running(
            searchr1("serve", "--port", str(port)),
            port,
            ready="/readyz",
            log=log,
            environment=environment,
            timeout_s=60,
        )
        server = await asyncio.to_thread(command.__enter__)
        try:
            await eventually(lambda: "Serving" in log.read_text("utf-8"))
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
                yield Workers(client, server.pid, log, engine)
        finally:
            await asyncio.to_thread(command.__exit__, None, None, None)
    assert not server.left_processes
    assert "Traceback" not in log.read_text("utf-8")


def are_answers(answers: Sequence[httpx.Response | BaseException]) -> bool:
    return all(isinstance(answer, httpx.Response) and answer.json()["answer"] == "Bamako" for answer in answers)


@pytest.mark.process
async def test_two_workers_serve_one_port_and_count_together(redis: RedisServer, tmp_path: Path) -> None:
    async with served_by_workers(redis, tmp_path) as workers:
        assert len(workers.pids) == 2
        answers = await workers.ask_many(200)
        assert are_answers(answers)
        assert workers.served.total() == 200
        assert min(workers.served["worker 1"], workers.served["worker 2"]) > 40
        assert await workers.metric(f'searchr1_runs_total{{model="{MODEL}",status="completed"}}') == 200
        assert await workers.metric(f'searchr1_run_seconds_count{{model="{MODEL}"}}') == 200
        assert await workers.metric("searchr1_runs_running") == 0
        assert await workers.metric(f'searchr1_engine_up{{model="{MODEL}"}}') == 1


@pytest.mark.process
async def test_a_run_of_one_worker_is_found_by_the_other(redis: RedisServer, tmp_path: Path) -> None:
    async with served_by_workers(redis, tmp_path) as workers:
        [answer] = await workers.ask_many(1)
        assert isinstance(answer, httpx.Response)
        run_id = answer.json()["id"]
        seen: set[str] = set()
        while len(seen) < 2:
            assert (await workers.client.get(f"/v1/research/{run_id}")).json()["answer"] == "Bamako"
            lines = workers.log.read_text("utf-8")
            seen = set(re.findall(rf"\[(worker \d)\] searchr1.access: GET /v1/research/{run_id} 200", lines))


@pytest.mark.process
async def test_a_worker_that_is_killed_is_started_again_and_the_others_runs_go_on(
    redis: RedisServer, tmp_path: Path
) -> None:
    async with served_by_workers(redis, tmp_path) as workers:
        await workers.ask_many(20)
        workers.engine.pause_s = 1.0
        asking = asyncio.create_task(workers.ask_many(40))
        await eventually(lambda: workers.engine.num_running == 40)
        before = workers.pids
        killed = max(before)
        os.kill(killed, signal.SIGKILL)
        answers = await asking
        broken = [answer for answer in answers if isinstance(answer, httpx.TransportError)]
        assert 0 < len(broken) < 40
        assert are_answers([answer for answer in answers if answer not in broken])
        workers.engine.pause_s = 0.0
        await eventually(lambda: "serves again" in workers.log.read_text("utf-8"))
        assert "ended (SIGKILL); it is started again" in workers.log.read_text("utf-8")
        assert len(workers.pids) == 2
        assert workers.pids.keys() & before.keys() == before.keys() - {killed}
        num_before = workers.served
        assert are_answers(await workers.ask_many(60))
        assert len(workers.served - num_before) == 2, "both serve"
        completed = await workers.metric(f'searchr1_runs_total{{model="{MODEL}",status="completed"}}')
        assert completed == 20 + 40 - len(broken) + 60, "what the killed one had counted stays"
        assert await workers.metric("searchr1_runs_running") == 0, "what it had running does not"


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_all_workers(redis: RedisServer, tmp_path: Path, number: signal.Signals) -> None:
    async with served_by_workers(redis, tmp_path) as workers:
        workers.engine.pause_s = 1.0
        asking = asyncio.create_task(workers.ask_many(20))
        await eventually(lambda: workers.engine.num_running == 20)
        os.kill(workers.pid, number)
        assert are_answers(await asking)
        pid, status = await asyncio.to_thread(os.waitpid, workers.pid, 0)
        assert (pid, os.waitstatus_to_exitcode(status)) == (workers.pid, 0)
        assert workers.log.read_text("utf-8").count("stopping: taking requests") == 2


@pytest.mark.process
async def test_workers_whose_supervisor_is_killed_finish_their_runs_and_end(redis: RedisServer, tmp_path: Path) -> None:
    async with served_by_workers(redis, tmp_path) as workers:
        workers.engine.pause_s = 1.0
        asking = asyncio.create_task(workers.ask_many(10))
        await eventually(lambda: workers.engine.num_running == 10)
        pids = workers.pids
        os.kill(workers.pid, signal.SIGKILL)
        assert are_answers(await asking)
        await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@pytest.mark.process
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"TOKENIZER": "/nowhere"}, "/nowhere"),
        ({"WORKERS": "0"}, "SEARCHR1_WORKERS"),
        ({"PORT": "taken"}, "cannot listen on 127.0.0.1"),
    ],
)
def test_a_start_that_cannot_work_fails_whole_and_once(given: dict[str, str], told: str) -> None:
    with bind("127.0.0.1", 0) as taken:
        if given.get("PORT") == "taken":
            given = {"PORT": str(taken.getsockname()[1])}
        settings = {"PORT": "0", "REDIS_URL": "redis://127.0.0.1:9", "ENGINE_URL": "http://127.0.0.1:9", **given}
        ended = subprocess.run(
            searchr1("serve"),
            env={**os.environ, **environment_of(**settings)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=100,
        )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count(told) == 1, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"engine_url": None}, {"SEARCHR1_WORKERS", "SEARCHR1_ENGINE_URL"}),
        ({"redis_url": None}, {"SEARCHR1_WORKERS", "SEARCHR1_REDIS_URL"}),
        ({"max_concurrent_runs": 1}, {"SEARCHR1_WORKERS", "SEARCHR1_MAX_CONCURRENT_RUNS"}),
    ],
)
def test_workers_without_what_they_must_share_are_refused(given: dict[str, Any], names: set[str]) -> None:
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({**GIVEN, "workers": 2, **given})
    assert names <= set(re.findall(r"SEARCHR1_\w+", str(error.value)))
    Settings.model_validate({**GIVEN, "workers": 1, **given})


def test_a_worker_has_its_part_of_what_a_process_bounds() -> None:
    whole = Settings.model_validate({**GIVEN, "workers": 3, "max_connections": 100, "search_rate_per_s": 6.0})
    part = part_of(whole)
    assert (part.max_connections, part.search_rate_per_s) == (34, 2.0)
    assert part.max_queued_runs * 3 >= whole.max_queued_runs
    assert part.search_max_concurrent * 3 <= whole.search_max_concurrent
    assert part.max_concurrent_runs == whole.max_concurrent_runs, "workers balance those"
    assert part.engine_session_secret is not None
    given = Settings.model_validate({**GIVEN, "workers": 3, "engine_session_secret": "a-secret-of-the-operator"})
    assert part_of(given).engine_session_secret == given.engine_session_secret
    assert (
        part_of(Settings.model_validate({**GIVEN, "workers": 64, "search_max_concurrent": 1})).search_max_concurrent
        == 1
    )


def test_a_worker_that_dies_again_and_again_is_started_ever_later() -> None:
    delays = [delay_before(number) for number in range(100)]
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays == sorted(delays)
    assert delays[-1] == 30.0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_shared_port_is_one_servers_alone(host: str) -> None:
    with bind_shared(host, 0) as (_, port), join_shared(host, port) as one, join_shared(host, port) as other:
        with socket.socket(one.family) as client, pytest.raises(ConnectionRefusedError):
            client.connect((host, port))
        one.listen()
        other.listen()
        with pytest.raises(ConfigurationError, match="cannot listen"), bind_shared(host, port):
            pass
        with pytest.raises(ConfigurationError, match="cannot listen"):
            bind(host, port)
