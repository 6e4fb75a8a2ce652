"""Several servers as one engine: where sessions go, what is told of replicas, and new weights."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

import pytest

from loadtests.processes import free_port
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Engine, EngineHealth, Replicated, ServedEngine, TakesWeights
from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.engines.pool.discovery import Discovery, Static
from searchr1.engines.pool.pool import PoolTimes, VllmPool
from searchr1.engines.vllm.http import HttpTimeouts, VllmHttpEngine
from searchr1.errors import EngineClosedError, EngineError, EngineUnavailableError
from tests.engines.helpers import GREEDY, PROMPT, said, write_noisy_copy
from tests.engines.pool.test_faults import until
from tests.engines.vllm.fake_vllm import MODEL, Answer, FakeVllm, Fault, serve_fake_vllm
from tests.support.vllm_server import run_vllm

TURNS = itertools.repeat("<answer> a </answer>")
TIMEOUTS = HttpTimeouts(probe_s=0.4, health_kept_s=0.0)


def encode(text: str) -> list[int]:
    return list(text.encode())


def opened(*urls: str, model: str = "") -> AbstractAsyncContextManager[ServedEngine]:
    return open_engine(EngineConfig("vllm-pool", model, urls=urls))


def pool_of(discovery: Discovery, *, rolling: bool = False) -> VllmPool:
    def connect(url: str) -> VllmHttpEngine:
        return VllmHttpEngine(url, MODEL, timeouts=TIMEOUTS)

    times = PoolTimes(look_every_s=0.05, discover_every_s=0.05, drain_s=0.0, first_look_s=1.0)
    return VllmPool(discovery, connect, rolling=rolling, times=times)


@asynccontextmanager
async def fakes(count: int) -> AsyncIterator[list[FakeVllm]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serve_fake_vllm(TURNS, encode=encode)) for _ in range(count)]


def static(*fakes: FakeVllm) -> Static:
    return Static(frozenset(fake.url for fake in fakes))


async def ask(engine: Engine, *sessions: str) -> None:
    for session in sessions:
        async for _ in engine.generate(PROMPT, GREEDY, session=session):
            pass


def sessions_of(fake: FakeVllm) -> list[str]:
    return [headers["X-Session-ID"] for headers in fake.headers]


async def test_sessions_take_turns_and_stay_where_they_are() -> None:
    async with fakes(2) as [one, two], opened(one.url, two.url) as engine:
        assert isinstance(engine, TakesWeights)
        assert isinstance(engine, Replicated)
        assert (await engine.health()).ok
        await ask(engine, "a", "b", "c", "a", "b", "a")
        first, second = sorted((sessions_of(one), sessions_of(two)), key=len)
        assert (first, second) == (["b", "b"], ["a", "c", "a", "a"])
        with pytest.raises(EngineError, match=r"VLLM_SERVER_DEV_MODE=1"):
            await engine.take_weights(Path("nowhere"), version="1")


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match=r"127\.0\.0\.1:9"):
        async with opened("http://127.0.0.1:9"):
            pass


async def test_new_sessions_go_where_most_room_is() -> None:
    async with fakes(3) as served:
        for fake, num_blocks in zip(served, (10, 100, 30), strict=True):
            fake.num_blocks = num_blocks
        async with pool_of(static(*served)) as pool:
            views = {view.name: (view.capacity_tokens, view.used_tokens, view.healthy) for view in pool.replicas}
            assert views[served[1].url] == (1584, 396, True)
            await ask(pool, "a", "b")
            assert [len(fake.bodies) for fake in served] == [0, 2, 0]


async def test_completions_on_their_way_take_room_until_the_load_is_read_again() -> None:
    async with fakes(2) as served:
        for fake, num_blocks in zip(served, (40, 43), strict=True):
            fake.num_blocks = num_blocks
        slow = VllmPool(static(*served), lambda url: VllmHttpEngine(url, MODEL), times=PoolTimes(look_every_s=600.0))
        async with slow as pool:
            await ask(pool, "a", "b")
            assert [len(fake.bodies) for fake in served] == [1, 1]


async def test_a_session_can_be_placed_and_a_wrong_name_is_ignored() -> None:
    async with fakes(2) as [one, two], pool_of(static(one, two)) as pool:
        for session in ("a", "b", "c"):
            pool.place(session, two.url)
        await ask(pool, "a", "b", "c", "a")
        assert (len(one.bodies), len(two.bodies)) == (0, 4)
        pool.place("d", "http://nowhere:1")
        await ask(pool, "d")
        pool.place("a", one.url)
        await ask(pool, "a")
        assert "a" in sessions_of(one)


async def test_what_becomes_of_a_replica_is_told_in_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="searchr1.engines.pool")
    async with fakes(2) as [one, two], pool_of(static(one, two)) as pool:
        one.fault = Fault.REFUSE_BROKEN
        await until(lambda: pool.num_by_state["unwell"] == 1)
        assert (await pool.health()).ok
        await ask(pool, "a", "b")
        assert (len(one.bodies), len(two.bodies)) == (0, 2)
        two.fault = Fault.REFUSE_BROKEN
        await until(lambda: pool.num_by_state["unwell"] == 2)
        health = await pool.health()
        assert (health.ok, health.reason) == (False, "unhealthy")
        with pytest.raises(EngineUnavailableError, match="none of the 2 replicas"):
            await ask(pool, "a")
        one.fault = two.fault = None
        await until(lambda: pool.num_by_state["ready"] == 2)
        await pool.drain(one.url)
        assert pool.num_by_state == {"ready": 1, "unwell": 0, "draining": 0, "gone": 1}
        with pytest.raises(KeyError):
            await pool.drain(one.url)
        pool.add(one.url)
        await until(lambda: pool.num_by_state["ready"] == 2)
    lines = [record.getMessage().split(" (")[0] for record in caplog.records if one.url in record.getMessage()]
    changes = [line.removeprefix(f"replica {one.url}: ") for line in lines]
    assert changes == [
        "ready, was unwell",
        "unwell, was ready",
        "ready, was unwell",
        "draining, was ready",
        "gone, was draining",
        "ready, was unwell",
    ]


class Changing:
    """A discovery that the test changes."""

    changes = True

    def __init__(self, *urls: str) -> None:
        self.urls: frozenset[str] | None = frozenset(urls)

    async def addresses(self) -> frozenset[str]:
        if self.urls is None:
            raise EngineUnavailableError("no DNS")
        return self.urls


async def test_servers_come_and_go_as_they_are_found() -> None:
    async with fakes(3) as [one, two, three]:
        found = Changing(one.url, two.url)
        async with pool_of(found) as pool:

            def names() -> set[str]:
                return {view.name for view in pool.replicas if view.healthy}

            assert names() == {one.url, two.url}
            found.urls = frozenset((two.url, three.url))
            await until(lambda: names() == {two.url, three.url})
            for nothing in (None, frozenset[str]()):
                found.urls = nothing
                await asyncio.sleep(0.15)
                assert names() == {two.url, three.url}


async def test_a_server_that_comes_back_while_it_leaves_stays() -> None:
    async with fakes(2) as [one, two]:
        one.completions = two.completions = iter([["<answer>", " a "] * 400] * 2)
        one.pause_s = two.pause_s = 0.01
        one.bytes_per_write = two.bytes_per_write = 100
        async with pool_of(static(one, two)) as pool:
            asking = asyncio.create_task(ask(pool, "a"))
            await until(lambda: one.num_running + two.num_running == 1)
            busy = one if one.num_running else two
            leaving = asyncio.create_task(pool.drain(busy.url, within_s=0.3))
            await until(lambda: pool.num_by_state["draining"] == 1)
            pool.add(busy.url)
            await leaving
            assert pool.num_by_state == {"ready": 2, "unwell": 0, "draining": 0, "gone": 0}
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_a_pool_that_is_closed_says_so() -> None:
    async with fakes(1) as [one], pool_of(static(one)) as pool:
        pass
    with pytest.raises(EngineClosedError):
        await ask(pool, "a")


async def test_old_sessions_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.engines.pool.pool._MAX_SESSIONS", 2)
    async with fakes(2) as [one, two], pool_of(static(one, two)) as pool:
        await ask(pool, "a", "b", "c")
        assert list(pool._sessions) == ["b", "c"]


CONTROLS = ["/pause", "/collective_rpc", "/update_weight_version", "/resume", "/v1/completions"]


async def test_weights_roll_over_one_replica_after_the_other() -> None:
    told: list[tuple[str, str]] = []
    async with fakes(2) as served, pool_of(static(*served), rolling=True) as pool:
        for fake in served:
            fake.takes_weights, fake.told = True, told
        await pool.take_weights(Path("/weights"), version="2")
        first, second = [path for _, path in told[:5]], [path for _, path in told[5:]]
        assert first == second == CONTROLS
        assert len({url for url, _ in told[:5]}) == len({url for url, _ in told[5:]}) == 1
        assert pool.num_by_state["ready"] == 2


async def test_weights_go_to_all_at_once_where_no_two_may_differ() -> None:
    told: list[tuple[str, str]] = []
    async with fakes(2) as served, pool_of(static(*served)) as pool:
        for fake in served:
            fake.takes_weights, fake.told = True, told
        await pool.take_weights(Path("/weights"), version="2")
        assert {path for _, path in told[:2]} == {"/pause"}
        assert sorted(path for _, path in told) == sorted(CONTROLS[:4] * 2)


async def test_a_replica_that_does_not_take_weights_gets_no_sessions_until_it_has_taken_others() -> None:
    async with fakes(2) as [bad, good], pool_of(static(bad, good), rolling=True) as pool:
        bad.takes_weights = good.takes_weights = bad.fails_at_weights = True
        with pytest.raises(EngineError, match=f"did not reach every replica.*{bad.url}"):
            await pool.take_weights(Path("/weights"), version="2")
        assert [view.state for view in pool.replicas if view.name == bad.url] == ["draining"]
        bad.bodies.clear()
        await ask(pool, "a", "b", "c")
        assert not bad.bodies
        bad.fails_at_weights = False
        await pool.take_weights(Path("/weights"), version="3")
        assert pool.num_by_state["ready"] == 2


async def test_replicas_that_offer_no_way_to_take_weights_serve_on() -> None:
    async with fakes(2) as served, pool_of(static(*served), rolling=True) as pool:
        with pytest.raises(EngineError, match="VLLM_SERVER_DEV_MODE=1"):
            await pool.take_weights(Path("/weights"), version="2")
        assert pool.num_by_state["ready"] == 2


async def test_a_server_that_joins_or_was_away_gets_the_pools_weights_before_any_session() -> None:
    async with fakes(3) as [one, away, new], pool_of(static(one, away), rolling=True) as pool:
        for fake in (one, away, new):
            fake.takes_weights = True
        away.answers["/health"] = Answer(status=503)
        await until(lambda: pool.num_by_state["unwell"] == 1)
        await pool.take_weights(Path("/weights"), version="2")
        assert not away.told
        pool.add(new.url)
        assert pool.num_by_state["ready"] == 1
        await until(lambda: pool.num_by_state["ready"] == 2)
        assert not away.told, "it is asked for nothing while it is unwell"
        away.answers.clear()
        await until(lambda: pool.num_by_state["ready"] == 3)
        assert [path for _, path in new.told] == [path for _, path in away.told] == CONTROLS
        for starts_again in (False, True):
            one.answers["/health"] = Answer(then="cut")
            await until(lambda: pool.num_by_state["ready"] == 2)
            one.told.clear()
            one.weights_version = "default" if starts_again else "2"
            one.answers.clear()
            await until(lambda: pool.num_by_state["ready"] == 3)
            assert [path for _, path in one.told] == (CONTROLS if starts_again else [])


async def test_a_server_that_does_not_take_the_pools_weights_gets_no_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fakes(2) as [one, new], pool_of(static(one), rolling=True) as pool:
        one.takes_weights = True
        await pool.take_weights(Path("/weights"), version="2")
        assert pool.num_by_state["ready"] == 1
        pool.add(new.url)
        await until(lambda: "lacks the pool's weights" in caplog.text)
        assert pool.num_by_state["draining"] == 1
        await ask(pool, "a", "b")
        assert not new.bodies


async def test_a_replicas_watch_keeps_nothing_of_the_request_that_added_it() -> None:
    request_id: ContextVar[str] = ContextVar("request_id", default="")
    seen = list[str]()

    class Noting(VllmHttpEngine):
        async def health(self) -> EngineHealth:
            seen.append(request_id.get())
            return await super().health()

    async with fakes(1) as [one], VllmPool(static(), lambda url: Noting(url, MODEL)) as pool:
        request_id.set("req_1")
        pool.add(one.url)
        await until(lambda: bool(seen))
    assert set(seen) == {""}


async def test_weights_are_not_rolled_over_servers_of_which_none_is_there() -> None:
    async with fakes(1) as [one], pool_of(static(one), rolling=True) as pool:
        one.answers["/health"] = Answer(status=503)
        with pytest.raises(EngineUnavailableError, match="none of the 1 replicas is there"):
            await pool.take_weights(Path("/weights"), version="2")


@pytest.mark.vllm
@pytest.mark.timeout(600)
async def test_weights_sent_over_http_speak_as_those_of_a_fresh_server(tmp_path: Path) -> None:
    """On a checkpoint with tied embeddings."""
    other = tmp_path / "other"
    write_noisy_copy(CHECKPOINT, other)
    with run_vllm(other, tmp_path / "fresh.log") as server:
        async with opened(server.url) as engine:
            wanted = await said(engine)
    with run_vllm(CHECKPOINT, tmp_path / "synced.log", takes_weights=True) as server:
        async with opened(server.url) as engine:
            first = await said(engine)
            assert first != wanted
            assert isinstance(engine, TakesWeights)
            await engine.take_weights(other, version="2")
            assert await said(engine) == wanted
            with pytest.raises(EngineError, match="did not reach every replica"):
                await engine.take_weights(tmp_path / "nothing", version="3")
            await engine.take_weights(CHECKPOINT, version="4")
            assert await said(engine) == first


@pytest.mark.vllm
@pytest.mark.timeout(600)
async def test_a_real_server_that_is_started_again_speaks_with_the_pools_weights(tmp_path: Path) -> None:
    other, port = tmp_path / "other", free_port()
    write_noisy_copy(CHECKPOINT, other)
    url = f"http://127.0.0.1:{port}"
    first = run_vllm(CHECKPOINT, tmp_path / "first.log", takes_weights=True, port=port)
    again = run_vllm(CHECKPOINT, tmp_path / "again.log", takes_weights=True, port=port)
    await asyncio.to_thread(first.__enter__)
    async with VllmPool(Static(frozenset({url})), lambda where: VllmHttpEngine(where, "tiny"), rolling=True) as pool:
        try:
            old = await said(pool)
            await pool.take_weights(other, version="2")
            new = await said(pool)
            assert new != old
        finally:
            await asyncio.to_thread(first.__exit__, None, None, None)
        await until(lambda: pool.num_by_state["ready"] == 0)
        await asyncio.to_thread(again.__enter__)
        try:
            await until(lambda: pool.num_by_state["ready"] == 1)
            assert await said(pool) == new
        finally:
            await asyncio.to_thread(again.__exit__, None, None, None)


async def test_a_replica_whose_load_can_t_be_read_has_the_capacity_that_it_told_before() -> None:
    async with fakes(1) as [one]:
        one.num_blocks = 100
        async with pool_of(static(one)) as pool:
            await until(lambda: pool.replicas[0].used_tokens is not None)
            capacity_tokens = pool.replicas[0].capacity_tokens
            one.fails_metrics = True
            await until(lambda: pool.replicas[0].used_tokens is None)
            assert pool.replicas[0].capacity_tokens == capacity_tokens == 99 * 16
            assert pool.replicas[0].healthy
