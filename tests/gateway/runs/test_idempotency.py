"""Idempotency keys: a request that is sent again starts no second run, whatever became of the first one."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from searchr1.errors import EngineUnavailableError
from searchr1.gateway.runs.idempotency import Claim, IdempotencyKeys, claim_name
from searchr1.gateway.runs.store.base import RunStoreError
from searchr1.gateway.runs.store.memory import MemoryRunStore
from tests.gateway.conftest import MODEL, Stage, StageEngine, eventually, running_stage, sse_payloads
from tests.support.redis_server import RedisServer, run_redis

QUESTION = "Which currency is used in Mali?"
PATH = "/v1/research"
TURNS = 2
"""Completions of one run."""


async def post(
    stage: Stage, key: str | bytes | None = "k", *, path: str = PATH, auth: str = "", **body: object
) -> httpx.Response:
    given = {"question": QUESTION, **body} if path == PATH else body
    headers: list[tuple[str | bytes, str | bytes]] = [] if key is None else [("Idempotency-Key", key)]
    headers += [("authorization", f"Bearer {auth}")] if auth else []
    return await stage.client.post(path, json=given, headers=headers)  # type: ignore[arg-type]


def whole(response: httpx.Response) -> tuple[str, bool]:
    """The id of a run that was answered well, and whether the answer was of an earlier request's."""
    assert response.status_code == 200, response.text
    return response.headers["x-run-id"], response.headers.get("idempotent-replayed") == "true"


def is_refused(response: httpx.Response, status: int, code: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert "x-run-id" not in response.headers


def num_runs(*stages: Stage) -> int:
    return sum(len(stage.engine.prompts) for stage in stages) // TURNS


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_again_is_the_same_run(stage: Stage, stream: bool) -> None:
    first, again = [await post(stage, stream=stream) for _ in range(2)]
    run_id, replayed = whole(first)
    assert not replayed
    assert whole(again) == (run_id, True)
    if stream:
        assert sse_payloads(again.text) == sse_payloads(first.text)
    else:
        assert again.json() == first.json()
    assert again.headers["content-type"] == first.headers["content-type"]
    assert num_runs(stage) == 1


async def test_without_a_key_each_request_is_a_run(stage: Stage) -> None:
    answers = [whole(await post(stage, None)) for _ in range(2)]
    assert len({run_id for run_id, _ in answers}) == 2
    assert not any(replayed for _, replayed in answers)


async def test_spaces_and_the_order_of_fields_make_no_other_request(stage: Stage) -> None:
    run_id, _ = whole(await post(stage, stream=False))
    other = json.dumps({"stream": False, "question": QUESTION}, indent=3)
    headers = {"Idempotency-Key": "k", "content-type": "application/json"}
    assert whole(await stage.client.post(PATH, content=other, headers=headers)) == (run_id, True)


@pytest.mark.parametrize("other", [{"question": "Where is Mali?"}, {"stream": True}, {"seed": 1}, {"store": False}])
async def test_another_body_is_refused(stage: Stage, other: dict[str, Any]) -> None:
    run_id, _ = whole(await post(stage))
    is_refused(await post(stage, **other), 422, "idempotency_key_reused")
    is_refused(await post(stage, path=f"{PATH}/replay", run_id=run_id), 422, "idempotency_key_reused")
    assert whole(await post(stage)) == (run_id, True)
    assert num_runs(stage) == 1


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"caf\xe9", "clé".encode(), b"a\tb"])
async def test_a_malformed_key_is_refused(stage: Stage, key: bytes) -> None:
    is_refused(await post(stage, key), 400, "invalid_value")
    assert num_runs(stage) == 0


async def test_two_keys_are_refused(stage: Stage) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    is_refused(await stage.client.post(PATH, json={"question": QUESTION}, headers=headers), 400, "invalid_value")


@pytest.mark.parametrize("key", ["k", "k" * 255, "!~", "a b", '"quoted", and more', "../:{}*"])
async def test_any_printable_key_will_do(stage: Stage, key: str) -> None:
    run_id, _ = whole(await post(stage, key))
    assert whole(await post(stage, key)) == (run_id, True)


@pytest.mark.parametrize("stream", [False, True])
async def test_many_at_one_moment_start_one_run(stage: Stage, stream: bool) -> None:
    answers = [whole(one) for one in await asyncio.gather(*(post(stage, stream=stream) for _ in range(20)))]
    assert len({run_id for run_id, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert num_runs(stage) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_many_at_one_moment_on_two_replicas_start_one_run(pair: tuple[Stage, Stage], stream: bool) -> None:
    key = f"many-{stream}"
    asked = (post(stage, key, stream=stream) for _ in range(10) for stage in pair)
    answers = [whole(one) for one in await asyncio.gather(*asked)]
    assert len({run_id for run_id, _ in answers}) == 1
    assert sum(not replayed for _, replayed in answers) == 1
    assert num_runs(*pair) == 1


async def test_another_replica_knows_the_key(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    first = await post(one, "shared")
    again = await post(other, "shared")
    assert whole(again) == (whole(first)[0], True)
    assert again.json() == first.json()
    is_refused(await post(other, "shared", seed=1), 422, "idempotency_key_reused")
    # A new run of the other replica counts on the first one, too.
    await one.client.delete(f"{PATH}/{whole(first)[0]}")
    [fresh] = {whole(await post(stage, "shared"))[0] for stage in (one, other, one)}
    assert fresh != whole(first)[0]


async def test_a_deleted_run_of_another_replica_makes_room(pair: tuple[Stage, Stage], monkeypatch: Any) -> None:
    monkeypatch.setattr("searchr1.gateway.routes.idempotency._BEGINS_WITHIN_S", 0.3)
    one, other = pair
    run_id, _ = whole(await post(one, "deleted"))
    await one.client.delete(f"{PATH}/{run_id}")
    fresh, replayed = whole(await post(other, "deleted"))
    assert fresh != run_id
    assert not replayed
    assert whole(await post(one, "deleted")) == (fresh, True)


@pytest.fixture
async def tenants() -> AsyncIterator[Stage]:
    async with running_stage(api_keys=["key-one-long-enough", "key-two-long-enough"]) as running:
        yield running


async def test_keys_of_other_callers_never_match(tenants: Stage) -> None:
    one, other = "key-one-long-enough", "key-two-long-enough"
    first, _ = whole(await post(tenants, auth=one))
    theirs, replayed = whole(await post(tenants, auth=other))
    assert theirs != first
    assert not replayed
    assert whole(await post(tenants, auth=other, seed=1, key="k2"))[0] not in (first, theirs)
    assert whole(await post(tenants, auth=one)) == (first, True)


async def test_a_run_that_is_gone_is_run_again(stage: Stage) -> None:
    run_id, _ = whole(await post(stage))
    await stage.client.delete(f"{PATH}/{run_id}")
    fresh, replayed = whole(await post(stage))
    assert fresh != run_id
    assert not replayed
    assert whole(await post(stage)) == (fresh, True)


async def test_an_expired_run_is_run_again() -> None:
    async with running_stage(run_ttl_s=1) as stage:
        run_id, _ = whole(await post(stage))
        await asyncio.sleep(1.2)
        assert whole(await post(stage))[0] != run_id


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_run_is_run_again(stream: bool) -> None:
    engine = StageEngine(error=EngineUnavailableError("down"))
    async with running_stage(engine=engine) as stage:
        failed = await post(stage, stream=stream)
        assert failed.status_code == 503
        engine.error = None
        stage.services.readiness.engines[MODEL].part.note(ok=True)
        _, replayed = whole(await post(stage, stream=stream))
        assert not replayed


async def test_a_refused_request_holds_no_key(stage: Stage) -> None:
    assert (await post(stage, question=" ")).status_code == 400
    assert (await post(stage, previous_run_id="run_none")).status_code == 404
    assert whole(await post(stage))[1] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_server_refuses_new_keys_and_follows_known_ones(stream: bool) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine, max_concurrent_runs=1) as stage:
        assert engine.hold is not None
        first = asyncio.create_task(post(stage, "known", stream=stream))
        await eventually(lambda: engine.num_open == 1)
        is_refused(await post(stage, "new", stream=stream), 503, "overloaded")
        again = asyncio.create_task(post(stage, "known", stream=stream))
        await asyncio.wait((again,), timeout=0.3)
        assert not again.done()  # It follows the run.
        engine.hold.set()
        run_id, _ = whole(await first)
        assert whole(await again) == (run_id, True)
        assert whole(await post(stage, "new", stream=stream))[1] is False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_lost_its_connection_finds_its_run_going_on(stage: Stage, stream: bool) -> None:
    stage.engine.hold = asyncio.Event()
    lost = asyncio.create_task(post(stage, stream=stream))
    await eventually(lambda: stage.engine.num_open == 1)
    lost.cancel()
    await asyncio.gather(lost, return_exceptions=True)
    again = asyncio.create_task(post(stage, stream=stream))
    await asyncio.sleep(0.1)  # In which the server hears of the one that left.
    stage.engine.hold.set()
    assert whole(await again)[1] is True
    assert (await again).text.count("West African CFA franc") > 0
    assert num_runs(stage) == 1


async def test_a_run_that_is_not_stored_is_known_while_it_goes_on(stage: Stage) -> None:
    stage.engine.hold = asyncio.Event()
    both = [asyncio.create_task(post(stage, store=False)) for _ in range(2)]
    await eventually(lambda: stage.engine.num_open == 1)
    stage.engine.hold.set()
    answers = [whole(one) for one in await asyncio.gather(*both)]
    assert len({run_id for run_id, _ in answers}) == 1
    assert whole(await post(stage, store=False))[0] != answers[0][0]
    assert num_runs(stage) == 2


async def test_a_replay_starts_one_run(stage: Stage) -> None:
    run_id, _ = whole(await post(stage, None))
    answers = [whole(await post(stage, path=f"{PATH}/replay", run_id=run_id)) for _ in range(2)]
    assert answers[1] == (answers[0][0], True)
    assert num_runs(stage) == 2


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


async def test_without_its_redis_a_replica_knows_its_own_keys(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_stage(redis_url=own_redis.url) as stage:
        own_redis.kill()
        stage.engine.hold = asyncio.Event()
        with caplog.at_level(logging.WARNING):
            first = asyncio.create_task(post(stage, "k-secret"))
            await eventually(lambda: stage.engine.num_open == 1)
            again = asyncio.create_task(post(stage, "k-secret"))
            await asyncio.sleep(0.1)
            stage.engine.hold.set()
            assert whole(await again) == (whole(await first)[0], True)
        assert num_runs(stage) == 1
        assert any("store" in record.getMessage() for record in caplog.records)
        assert "k-secret" not in caplog.text


class Down(MemoryRunStore):
    """Does not answer about claims."""

    async def claim(self, name: str, value: bytes) -> bytes:
        raise RunStoreError("down")

    async def claimed(self, name: str) -> bytes | None:
        raise RunStoreError("down")

    async def release(self, name: str, value: bytes) -> None:
        raise RunStoreError("down")


class Damaged(MemoryRunStore):
    """Holds something that is no claim, until that is released."""

    held: bytes | None = b"\xff{"

    async def claim(self, name: str, value: bytes) -> bytes:
        return value if self.held is None else self.held

    async def release(self, name: str, value: bytes) -> None:
        assert value == self.held
        self.held = None


def keys_over(store: type[MemoryRunStore], failures: list[RunStoreError], **options: Any) -> IdempotencyKeys:
    opened = store(ttl_s=60, max_bytes=2**20)
    return IdempotencyKeys(opened, **{"ttl_s": 60.0, "on_failure": failures.append, **options})


def claim_of(run_id: str) -> Claim:
    return Claim("f", run_id, 1)


async def test_a_store_that_is_down_is_told_and_memory_answers() -> None:
    failures: list[RunStoreError] = []
    keys = keys_over(Down, failures)
    assert not await keys.knows("n")
    assert await keys.claim("n", claim_of("one"), shared=True) == claim_of("one")
    keys.begun("n", claim_of("one"))
    assert await keys.knows("n")
    assert await keys.claim("n", claim_of("two"), shared=True) == claim_of("one")
    await keys.release("n", claim_of("one"))
    assert await keys.claim("n", claim_of("two"), shared=True) == claim_of("two")
    assert len(failures) == 4


async def test_a_damaged_claim_is_in_nobodys_way() -> None:
    keys = keys_over(Damaged, [])
    assert await keys.claim("n", claim_of("one"), shared=True) == claim_of("one")


async def test_the_number_of_claims_is_bounded_and_they_expire() -> None:
    now = 0.0
    keys = keys_over(MemoryRunStore, [], max_claims=3, clock=lambda: now)
    for i in range(5):
        await keys.claim(f"n{i}", claim_of(str(i)), shared=True)
    assert [await keys.knows(f"n{i}") for i in range(5)] == [False, False, True, True, True]
    now = 60.0
    assert not await keys.knows("n4")


async def test_who_waits_for_a_claim_that_is_given_up_makes_it() -> None:
    keys = keys_over(MemoryRunStore, [])
    await keys.claim("n", claim_of("one"), shared=True)
    waiting = [asyncio.create_task(keys.claim("n", claim_of(str(i)), shared=True)) for i in range(3)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    await keys.release("n", claim_of("one"))
    made = await waiting[0]
    keys.begun("n", made)
    assert {one.run_id for one in await asyncio.gather(*waiting)} == {made.run_id}


async def test_only_the_claim_that_stands_is_released() -> None:
    keys = keys_over(MemoryRunStore, [])
    await keys.claim("n", claim_of("one"), shared=True)
    await keys.release("n", claim_of("two"))
    assert await keys.knows("n")


def test_scope_and_key_never_run_together() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("a", "bC")]
    assert len({claim_name(*pair) for pair in pairs}) == len(pairs)
