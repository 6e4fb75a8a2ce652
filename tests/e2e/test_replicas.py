"""Two gateway processes before one vLLM and one Redis: searches are shared, runs are found and ended everywhere."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.processes import Server, free_port, running, searchr1
from searchr1.atlas.build import build_world
from searchr1.demo.bundle import CHECKPOINT
from searchr1.retrieval.index.bm25 import build_index
from searchr1_client.events import parse_event
from tests.support.redis_server import RedisServer, run_redis
from tests.support.vllm_server import VllmServer, run_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.redis]

TIMBUKTU = "Which currency is used in the country where Timbuktu is?"
ANSWER = "West African CFA franc"


@dataclass(frozen=True)
class Deployment:
    """What an operator would run, small."""

    one: Server
    other: Server
    engine: VllmServer
    redis: RedisServer

    def ask(self, gateway: Server, **options: object) -> dict[str, Any]:
        body = {"question": TIMBUKTU, "temperature": 0, **options}
        response = httpx.post(f"{gateway.url}/v1/research", json=body, timeout=120)
        assert response.status_code == 200, response.text
        run: dict[str, Any] = response.json()
        assert run["answer"] == ANSWER
        return run


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A search server, Redis, vLLM and two gateways."""
    folder = tmp_path_factory.mktemp("replicas")
    build_world(folder)
    build_index(folder / "corpus.jsonl", folder / "index", progress=False)
    with ExitStack() as stack:
        redis = stack.enter_context(run_redis())
        engine = stack.enter_context(run_vllm(CHECKPOINT, folder / "vllm.log"))
        port = free_port()
        command = searchr1("retriever", "serve", f"index:{folder / 'index'}", "--port", str(port))
        retriever = stack.enter_context(running(command, port, ready="/healthz", log=folder / "retriever.log"))

        def gateway(name: str) -> Server:
            port = free_port()
            command = searchr1("serve", "--engine-url", engine.url, "--model", engine.model, "--port", str(port))
            environment = {
                "SEARCHR1_TOKENIZER": str(CHECKPOINT),
                "SEARCHR1_RETRIEVER": f"{retriever.url}/retrieve",
                "SEARCHR1_REDIS_URL": redis.url,
            }
            log = folder / f"{name}.log"
            return stack.enter_context(running(command, port, ready="/readyz", log=log, environment=environment))

        yield Deployment(gateway("one"), gateway("other"), engine, redis)


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+-]+)$", text, re.MULTILINE)))


def eventually_free(deployment: Deployment) -> None:
    for _ in range(100):
        if metric(deployment.engine.url, "vllm:num_requests_running") == 0:
            return
        time.sleep(0.1)
    raise AssertionError("the engine still works on a run that has ended")


def test_what_one_gateway_searched_the_other_finds_in_the_cache(deployment: Deployment) -> None:
    first, second = deployment.ask(deployment.one), deployment.ask(deployment.other)
    caches = [[step["cache"] for step in run["steps"] if step["query"]] for run in (first, second)]
    assert set(caches[0]) == {"miss"}
    assert set(caches[1]) == {"hit"}
    assert first["citations"] == second["citations"]
    replayed = httpx.get(f"{deployment.one.url}/v1/research/{second['id']}/events", timeout=30).text
    assert parse_event(replayed.strip().rpartition("data: ")[2]).type == "run.completed"


def test_cache_only_answers_without_the_provider(deployment: Deployment) -> None:
    deployment.ask(deployment.one)
    run = deployment.ask(deployment.other, cache="only")
    assert {step["cache"] for step in run["steps"] if step["query"]} == {"hit"}


def test_a_replay_repeats_a_run_token_by_token_on_the_other_gateway(deployment: Deployment) -> None:
    run = deployment.ask(deployment.one)
    answer = httpx.post(f"{deployment.other.url}/v1/research/replay", json={"run_id": run["id"]}, timeout=120)
    assert answer.status_code == 200, answer.text
    old, new = (
        httpx.get(f"{deployment.one.url}/v1/research/{run_id}", timeout=30).json()["trajectory"]["segments"]
        for run_id in (run["id"], answer.json()["id"])
    )
    assert [s["token_ids"] for s in new] == [s["token_ids"] for s in old]


def test_a_run_is_ended_from_the_other_gateway_and_the_engine_is_free(deployment: Deployment) -> None:
    body = {"question": TIMBUKTU, "stream": True, "temperature": 1.5}
    with httpx.stream("POST", f"{deployment.one.url}/v1/research", json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(line for line in lines if '"think.delta"' in line)
        path = f"/v1/research/{response.headers['x-run-id']}"
        for _ in range(100):
            asked = httpx.post(f"{deployment.other.url}{path}/cancel", timeout=30)
            if asked.status_code == 200:
                break
            time.sleep(0.05)
        last = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][-1]
    assert last["type"] == "run.completed"
    assert asked.json()["status"] == last["status"]
    eventually_free(deployment)


def test_the_gateways_outlive_redis(deployment: Deployment) -> None:
    deployment.redis.kill()
    try:
        for gateway in (deployment.one, deployment.other):
            run = deployment.ask(gateway)
            assert {step["cache"] for step in run["steps"] if step["query"]} == {"miss"}
    finally:
        deployment.redis.start()
    for _ in range(100):
        run = deployment.ask(deployment.one)
        if {step["cache"] for step in run["steps"] if step["query"]} == {"hit"}:
            break
        time.sleep(0.2)
    assert {step["cache"] for step in deployment.ask(deployment.other)["steps"] if step["query"]} == {"hit"}


def test_a_gateway_that_is_killed_leaves_a_failed_run_and_a_free_engine(deployment: Deployment, tmp_path: Path) -> None:
    body = {"question": TIMBUKTU, "stream": True, "temperature": 1.5}
    with httpx.stream("POST", f"{deployment.one.url}/v1/research", json=body, timeout=60) as response:
        run_id = response.headers["x-run-id"]
        for _ in response.iter_lines():
            known = httpx.get(f"{deployment.other.url}/v1/research/{run_id}", timeout=30)
            if known.status_code == 200:
                break
        os.kill(deployment.one.pid, signal.SIGKILL)
    eventually_free(deployment)
    followed = httpx.get(f"{deployment.other.url}/v1/research/{run_id}/events", timeout=60).text
    last = parse_event(followed.strip().rpartition("data: ")[2])
    assert last.type in ("run.failed", "run.completed")
    deployment.ask(deployment.other)
