"""``/admin/replicas`` and new weights for a pool: who may, what is refused, and that no run is lost meanwhile."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.factory import open_engine
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import FakeVllm, serve_fake_vllm
from tests.gateway.conftest import ADMIN_KEY, MODEL, Other, Stage, StageEngine, eventually, running_stage
from tests.gateway.test_engine_pool import ANSWER, TURNS, bytes_model, settings

NUM_RUNS = 24


@asynccontextmanager
async def served(num_replicas: int = 2, **given: Any) -> AsyncIterator[tuple[Stage, list[FakeVllm]]]:
    """A gateway before so many servers, of which the last one is not in its pool yet."""
    async with (
        serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode())) as one,
        serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode())) as two,
        serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode())) as spare,
    ):
        fakes = [one, two, spare]
        config = settings(*(fake.url for fake in fakes[:num_replicas]), engine="vllm-pool")
        async with (
            open_engine(config.engine_config()) as engine,
            running_stage(engine=cast(Any, engine), **given) as stage,
        ):
            yield stage, fakes


def name_of(fake: FakeVllm) -> str:
    return fake.url.removeprefix("http://")


async def listed(stage: Stage) -> dict[str, dict[str, Any]]:
    answer = await stage.client.get("/admin/replicas")
    assert answer.is_success, answer.text
    return {one["name"]: one for one in answer.json()["data"]}


async def post(stage: Stage, path: str = "", **body: Any) -> httpx.Response:
    return await stage.client.post(f"/admin/replicas{path}", json=body or None)


def error_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_replicas_are_listed_with_what_is_known_of_them() -> None:
    async with served() as (stage, [one, two, _]):
        one.num_blocks = 100
        found = await listed(stage)
        assert set(found) == {name_of(one), name_of(two)}
        assert found[name_of(two)] == {
            "name": name_of(two),
            "address": two.url,
            "model": MODEL,
            "state": "ready",
            "healthy": True,
            "draining": False,
            "capacity_tokens": None,
            "used_tokens": None,
            "num_in_flight": 0,
            "num_waiting": 0,
            "breaker": "closed",
        }


async def test_one_is_added_drained_admitted_and_removed() -> None:
    async with served() as (stage, [one, two, spare]):
        added = await post(stage, address=f"{spare.url}/v1/")
        assert (added.json()["name"], added.json()["address"]) == (name_of(spare), spare.url)
        pool: Any = stage.engine
        await eventually(lambda: pool.num_by_state["ready"] == 3)
        for fake in (one, two):
            drained = (await post(stage, f"/{name_of(fake)}/drain")).json()
            assert (drained["state"], drained["draining"], drained["healthy"]) == ("draining", True, False)
        asked = await stage.client.post("/v1/research", json={"question": "Mali?"})
        assert asked.is_success
        assert [len(fake.bodies) for fake in (one, two, spare)] == [0, 0, 2]
        assert (await post(stage, f"/{name_of(one)}/admit")).json()["state"] == "ready"
        removed = await stage.client.delete(f"/admin/replicas/{name_of(two)}")
        assert removed.status_code == 202
        await eventually(lambda: pool.num_by_state["gone"] == 1)
        assert set(await listed(stage)) == {name_of(one), name_of(spare)}


async def test_the_last_replica_stays() -> None:
    async with served(num_replicas=1) as (stage, [one, two, _]):
        assert error_of(await post(stage, f"/{name_of(one)}/drain")) == (409, "last_replica")
        assert error_of(await stage.client.delete(f"/admin/replicas/{name_of(one)}")) == (409, "last_replica")
        await post(stage, address=two.url)
        pool: Any = stage.engine
        await eventually(lambda: pool.num_by_state["ready"] == 2)
        assert (await post(stage, f"/{name_of(one)}/drain")).is_success


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://a:1",
        "http://",
        "dns+http://a:1",
        "k8s://a/b:1",
        "http://a:99999",
        "http://a b",
        "http://a/?q",
        "\x00",
    ],
)
async def test_an_address_that_can_not_be_used_is_refused(address: str) -> None:
    async with served() as (stage, _):
        answer = await post(stage, address=address)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "address"
        assert len(await listed(stage)) == 2


async def test_credentials_of_an_address_are_told_to_nobody() -> None:
    async with served() as (stage, [_, _, spare]):
        address = spare.url.replace("http://", "http://someone:sentinel@")
        answer = await post(stage, address=address)
        assert answer.json()["address"] == spare.url
        assert "sentinel" not in answer.text + (await stage.client.get("/admin/replicas")).text


async def test_what_is_not_there_is_told() -> None:
    async with served() as (stage, _):
        for way in ("drain", "admit"):
            assert error_of(await post(stage, f"/nowhere:1/{way}")) == (404, "replica_not_found")
        assert error_of(await stage.client.delete("/admin/replicas/nowhere:1")) == (404, "replica_not_found")
        assert error_of(await stage.client.get("/admin/replicas?model=none")) == (404, "model_not_found")
        assert error_of(await post(stage, address="http://a:1", model="none")) == (404, "model_not_found")


async def test_an_engine_that_is_no_pool_has_no_replicas() -> None:
    async with running_stage() as stage:
        assert await listed(stage) == {}
        assert error_of(await stage.client.get(f"/admin/replicas?model={MODEL}")) == (409, "engine_not_a_pool")
        assert error_of(await post(stage, address="http://a:1")) == (409, "engine_not_a_pool")
        assert error_of(await post(stage, "/a:1/drain")) == (409, "engine_not_a_pool")


async def test_each_model_has_its_own() -> None:
    async with served(others=[Other("small", StageEngine())]) as (stage, [one, _, _]):
        assert len(await listed(stage)) == 2, "only those models that have any are listed"
        assert error_of(await stage.client.get("/admin/replicas?model=small")) == (409, "engine_not_a_pool")
        assert error_of(await post(stage, f"/{name_of(one)}/drain?model=small")) == (409, "engine_not_a_pool")


@pytest.mark.parametrize("headers", [{"authorization": "Bearer wrong"}, {"authorization": ""}])
async def test_only_the_admin_may(headers: dict[str, str]) -> None:
    async with served(admin_key=ADMIN_KEY) as (stage, [one, _, spare]):
        paths = [("GET", ""), ("POST", ""), ("POST", f"/{name_of(one)}/drain"), ("DELETE", f"/{name_of(one)}")]
        for method, path in paths:
            body = {"address": spare.url} if path == "" and method == "POST" else None
            answer = await stage.client.request(method, f"/admin/replicas{path}", json=body, headers=headers)
            assert answer.status_code == 401
        pool: Any = stage.engine
        assert pool.num_by_state["ready"] == 2


def probed_model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """Says two bytes to a probe, and to a run what ``bytes_model`` says."""
    is_probe = params.max_tokens < 10
    return [Chunk("ab", (97, 98), "length")] if is_probe else bytes_model(prompt_ids, params)


async def ask(stage: Stage) -> dict[str, Any]:
    answer = await stage.client.post("/v1/research", json={"question": "Mali?"})
    assert answer.is_success, answer.text
    return cast(dict[str, Any], answer.json())


async def keep_asking(stage: Stage, until: asyncio.Event) -> list[dict[str, Any]]:
    """Ask one question after the other until the event is set."""
    runs = []
    while not until.is_set():
        runs.append(await ask(stage))
    return runs


async def test_runs_lose_nothing_while_replicas_are_drained_and_admitted() -> None:
    async with served() as (stage, fakes):
        for fake in fakes:
            fake.model, fake.pause_s = bytes_model, 0.01
        is_over = asyncio.Event()
        asking = [asyncio.create_task(keep_asking(stage, is_over)) for _ in range(NUM_RUNS)]
        await eventually(lambda: all(fake.num_running for fake in fakes[:2]))
        for leaves, stays in (fakes[:2], fakes[1::-1]):
            assert (await post(stage, f"/{name_of(leaves)}/drain")).is_success
            await eventually(lambda leaves=leaves: leaves.num_running == 0)  # type: ignore[misc]
            num_before = len(stays.bodies)
            await eventually(lambda stays=stays, before=num_before: len(stays.bodies) > before)  # type: ignore[misc]
            assert (await post(stage, f"/{name_of(leaves)}/admit")).is_success
        is_over.set()
        runs = [run for one in await asyncio.gather(*asking) for run in one]
        assert {(run["status"], run["answer"]) for run in runs} == {("completed", ANSWER)}
        metrics = (await stage.client.get("/metrics")).text
        assert "searchr1_completion_resumes_total 0.0" not in metrics, "some went on in their middle"


async def test_new_weights_roll_over_a_pool_under_load_and_no_run_is_lost() -> None:
    async with served() as (stage, fakes):
        for fake in fakes:
            fake.model, fake.pause_s, fake.takes_weights = probed_model, 0.005, True
        model = stage.services.default
        model.tokenizer, model.served_from = Tokenizer.load(str(CHECKPOINT)), str(CHECKPOINT)
        is_over = asyncio.Event()
        asking = [asyncio.create_task(keep_asking(stage, is_over)) for _ in range(NUM_RUNS)]
        await eventually(lambda: all(fake.num_running for fake in fakes[:2]))
        body = {"folder": str(CHECKPOINT), "version": "step-200", "model": MODEL}
        answer = await stage.client.post("/admin/reload", json=body)
        assert answer.json() == {"model": MODEL, "folder": str(CHECKPOINT), "policy_version": "step-200"}
        is_over.set()
        runs = [run for one in await asyncio.gather(*asking) for run in one]
        assert len(runs) >= NUM_RUNS
        assert {(run["status"], run["answer"]) for run in runs} == {("completed", ANSWER)}
        assert all(fake.told for fake in fakes[:2])
        record = (await stage.client.get(f"/v1/research/{(await ask(stage))['id']}")).json()
        assert record["trajectory"]["policy_version"] == "step-200"


async def test_one_of_several_workers_changes_no_replicas_that_the_others_would_not_know_of() -> None:
    async with served() as (stage, [one, *_]):
        stage.services.settings = stage.services.settings.model_copy(update={"workers": 2})
        for answer in (
            await post(stage, address="http://a:1"),
            await post(stage, f"/{name_of(one)}/drain"),
            await post(stage, f"/{name_of(one)}/admit"),
            await stage.client.delete(f"/admin/replicas/{name_of(one)}"),
        ):
            assert error_of(answer) == (409, "several_workers")
        assert {info["state"] for info in (await listed(stage)).values()} == {"ready"}
