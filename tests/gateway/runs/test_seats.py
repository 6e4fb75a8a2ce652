"""Runs that wait for their start: the queue through every API, its bounds, its fairness, and who leaves it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from loadtests.gateway_metrics import total
from searchr1.driver import DriveOptions, drive
from searchr1.engines.base import Chunk, EngineHealth, ReplicaView
from searchr1.gateway.runs.errors import NoSlotError, PromptTooLargeError, SeatExpiredError
from searchr1.gateway.runs.seats import Seats
from searchr1.identity import ANYONE, Caller
from searchr1.scheduling.decisions import Decision
from searchr1.scheduling.options import SchedulingOptions
from tests.gateway.conftest import ADMIN_KEY, MODEL, Stage, StageEngine, eventually, running_stage, sse_payloads

ASK = {"question": "Which currency is used in Mali?"}
MESSAGES = {"model": MODEL, "messages": [{"role": "user", "content": ASK["question"]}]}
ANSWER = "West African CFA franc"


@dataclass
class Full:
    """A stage whose only seat is taken until ``open_up``."""

    stage: Stage
    hold: asyncio.Event
    first: "asyncio.Task[httpx.Response]"

    def open_up(self) -> None:
        self.hold.set()


@asynccontextmanager
async def full_stage(**settings: Any) -> AsyncIterator[Full]:
    engine: StageEngine = settings.pop("engine", None) or StageEngine(hold=asyncio.Event())
    hold = engine.hold
    assert hold is not None
    given = {"max_concurrent_runs": 1, "max_queued_runs": 8, **settings}
    async with running_stage(engine=engine, **given) as stage:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        first = asyncio.create_task(stage.client.post("/v1/research", json=ASK, headers=headers))
        await eventually(lambda: stage.engine.num_open == 1)
        try:
            yield Full(stage, hold, first)
        finally:
            hold.set()
            await asyncio.gather(first, return_exceptions=True)


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in sse_payloads(answer.text)]


async def test_a_queued_run_is_told_its_place_and_starts_when_it_is_free() -> None:
    async with full_stage() as full:
        post = full.stage.client.post
        second = asyncio.create_task(post("/v1/research", json={**ASK, "stream": True}))
        await eventually(lambda: full.stage.services.default.seats.num_queued == 1)
        third = asyncio.create_task(post("/v1/research", json={**ASK, "stream": True}))
        await eventually(lambda: full.stage.services.default.seats.num_queued == 2)
        assert full.stage.engine.num_open == 1
        metrics = (await full.stage.client.get("/metrics")).text
        assert 'searchr1_runs_queued{model="test-model"} 2.0' in metrics
        assert total(metrics, "searchr1_runs_queued") == 2
        assert total(metrics, "searchr1_runs_running") == 3
        with pytest.raises(LookupError, match="no searchr1_runs_gone"):
            total(metrics, "searchr1_runs_gone")
        full.open_up()
        streams = [events_of(answer) for answer in await asyncio.gather(second, third)]
    for number, events in enumerate(streams):
        kinds = [event["type"] for event in events]
        assert kinds[:2] == ["run.started", "run.queued"]
        assert events[1]["place"] == number
        assert kinds[-2:] == ["answer.completed", "run.completed"]
        assert [event["seq"] for event in events] == list(range(len(events)))
    assert (await full.first).json()["answer"] == ANSWER


async def test_a_run_that_starts_at_once_is_told_no_place() -> None:
    async with running_stage(max_queued_runs=8) as stage:
        answer = await stage.client.post("/v1/research", json={**ASK, "stream": True})
    assert "run.queued" not in {event["type"] for event in events_of(answer)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/research", ASK),
        ("/v1/chat/completions", MESSAGES),
        ("/v1/chat/completions", {**MESSAGES, "stream": True}),
        ("/v1/chat/completions", {**MESSAGES, "n": 2}),
        ("/v1/responses", {"model": MESSAGES["model"], "input": ASK["question"]}),
        ("/v1/responses", {"model": MESSAGES["model"], "input": ASK["question"], "stream": True}),
    ],
)
async def test_every_api_waits_and_answers(path: str, body: dict[str, Any]) -> None:
    async with full_stage() as full:
        waiting = asyncio.create_task(full.stage.client.post(path, json=body))
        await eventually(lambda: full.stage.services.default.seats.num_queued == body.get("n", 1))
        full.open_up()
        answer = await waiting
        assert answer.status_code == 200
        assert ANSWER in answer.text
        await eventually(lambda: full.stage.services.default.seats.num_running == 0)


async def test_beyond_the_queue_runs_are_refused_before_anything_is_spent_on_them() -> None:
    async with full_stage(max_queued_runs=2) as full:
        queued = [asyncio.create_task(full.stage.client.post("/v1/research", json=ASK)) for _ in range(2)]
        await eventually(lambda: full.stage.services.default.seats.num_queued == 2)
        for path, body in (("/v1/research", ASK), ("/v1/chat/completions", MESSAGES), ("/v1/research", {})):
            refused = await full.stage.client.post(path, json=body)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) >= 1
        full.open_up()
        assert [(await answer).json()["answer"] for answer in queued] == [ANSWER, ANSWER]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_counts_in_the_queue(stream: bool) -> None:
    async with full_stage() as full:
        answer = await full.stage.client.post("/v1/research", json={**ASK, "stream": stream, "deadline_s": 0.2})
        assert full.stage.services.default.seats.num_queued == 0
        assert full.stage.engine.num_open == 1
    if stream:
        assert events_of(answer)[-1]["error"]["code"] == "deadline"
    else:
        assert answer.status_code == 504


class OnceQuick(StageEngine):
    """An engine whose first run ends when ``hold`` is set, and no other ever."""

    def generate(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Chunk, None]:
        if len(self.prompts) >= len(self.completions):
            self.hold = asyncio.Event()
        return super().generate(*args, **kwargs)


async def test_time_in_the_queue_is_part_of_the_run_s(monkeypatch: pytest.MonkeyPatch) -> None:
    left_s: list[float] = []

    def noted(rollout: Any, engine: Any, retriever: Any, options: DriveOptions, *rest: Any, **named: Any) -> Any:
        assert options.deadline_s is not None
        left_s.append(options.deadline_s)
        return drive(rollout, engine, retriever, options, *rest, **named)

    monkeypatch.setattr("searchr1.gateway.runs.drive.drive", noted)
    async with full_stage(engine=OnceQuick(hold=asyncio.Event())) as full:
        waiting = asyncio.create_task(full.stage.client.post("/v1/research", json={**ASK, "deadline_s": 0.9}))
        await eventually(lambda: full.stage.services.default.seats.num_queued == 1)
        await asyncio.sleep(0.4)
        full.open_up()
        run = (await waiting).json()
        assert (await full.first).json()["answer"] == ANSWER
    assert run["status"] == "deadline"
    assert left_s[1] <= 0.5  # Of the 0.9 s from the request's arrival on.
    assert run["usage"]["duration_ms"] >= 1000 * left_s[1] + 400


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_the_queue_leaves_nothing_behind(stream: bool) -> None:
    async with full_stage(resume_grace_s=0.0) as full:
        body = {**ASK, "stream": stream, "store": False}
        leaving = asyncio.create_task(full.stage.client.post("/v1/research", json=body))
        await eventually(lambda: full.stage.services.default.seats.num_queued == 1)
        leaving.cancel()
        await eventually(lambda: full.stage.services.default.seats.num_queued == 0)
        assert len(full.stage.engine.prompts) == 1


async def test_a_polite_key_waits_for_one_run_of_a_greedy_one_not_for_all() -> None:
    async with full_stage(api_keys=f"greedy,polite,{ADMIN_KEY}", max_queued_runs=40) as full:
        ended: list[str] = []

        async def ask(key: str) -> None:
            answer = await full.stage.client.post("/v1/research", json=ASK, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 200, answer.text
            ended.append(key)

        greedy = [asyncio.create_task(ask("greedy")) for _ in range(12)]
        await eventually(lambda: full.stage.services.default.seats.num_queued == 12)
        polite = [asyncio.create_task(ask("polite")) for _ in range(2)]
        await eventually(lambda: full.stage.services.default.seats.num_queued == 14)
        full.open_up()
        await asyncio.gather(*greedy, *polite)
    assert [i for i, key in enumerate(ended) if key == "polite"][-1] <= 5


async def test_one_key_can_take_half_of_the_queue() -> None:
    async with full_stage(api_keys=f"greedy,polite,{ADMIN_KEY}", max_queued_runs=4) as full:

        def ask(key: str) -> "asyncio.Task[httpx.Response]":
            headers = {"Authorization": f"Bearer {key}"}
            return asyncio.create_task(full.stage.client.post("/v1/research", json=ASK, headers=headers))

        taken = [ask("greedy"), ask("greedy")]
        await eventually(lambda: full.stage.services.default.seats.num_queued == 2)
        assert (await ask("greedy")).status_code == 503
        taken.append(ask("polite"))
        await eventually(lambda: full.stage.services.default.seats.num_queued == 3)
        full.open_up()
        assert [(await answer).status_code for answer in taken] == [200, 200, 200]


class MeasuredEngine(StageEngine):
    """An engine that tells how many tokens its KV cache holds."""

    async def metrics_text(self) -> str:
        return 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="250"} 1.0\n'


async def test_the_kv_cache_bounds_the_runs_that_go_on_at_once() -> None:
    engine = MeasuredEngine(hold=asyncio.Event())
    # A prompt has some 650 tokens, and 900 are reserved for what follows: two runs fit into 249 blocks, and not three.
    async with running_stage(engine=engine, max_queued_runs=8, max_turns=2, max_observation_tokens=350) as stage:
        await eventually(lambda: stage.services.default.seats._replicas["engine"].capacity_tokens == 3984)
        asking = [asyncio.create_task(stage.client.post("/v1/research", json=ASK)) for _ in range(5)]
        await eventually(lambda: (stage.services.default.seats.num_queued, engine.num_open) == (3, 2))
        assert stage.services.default.seats.num_running == 2
        assert engine.hold is not None
        engine.hold.set()
        # Runs at once share the engine's script.
        assert {(await answer).json()["status"] for answer in asking} <= {"completed", "exhausted"}
        assert stage.services.default.seats.num_running == 0


class SmallEngine(StageEngine):
    """An engine whose KV cache is smaller than a prompt."""

    async def metrics_text(self) -> str:
        return 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="25"} 1.0\n'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/research", ASK),
        ("/v1/chat/completions", MESSAGES),
        ("/v1/chat/completions", {**MESSAGES, "n": 2}),
        ("/v1/responses", {"model": MODEL, "input": ASK["question"]}),
    ],
)
async def test_a_prompt_that_no_cache_holds_is_the_clients_to_shorten(
    path: str, body: dict[str, Any], stream: bool
) -> None:
    async with running_stage(engine=SmallEngine()) as stage:
        await eventually(lambda: stage.services.default.seats._replicas["engine"].capacity_tokens == 384)
        refused = await stage.client.post(path, json={**body, "stream": stream})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert "the engine's cache holds 384" in error["message"]
        assert "retry-after" not in refused.headers
        assert (stage.services.default.seats.num_running, stage.services.default.seats.num_queued) == (0, 0)


@dataclass
class TwoReplicas(StageEngine):
    """A pool of two, which notes where each session was put."""

    states: dict[str, str] = field(default_factory=lambda: {"one": "ready", "two": "ready"})
    placed: list[tuple[str, str]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    num_failovers: int = 0

    @property
    def replicas(self) -> tuple[ReplicaView, ...]:
        return tuple(
            ReplicaView(name, state, self.tokens.get(name, 10_000), 0, 0, 0)  # type: ignore[arg-type]
            for name, state in self.states.items()
        )

    @property
    def num_by_state(self) -> dict[str, int]:
        return {}

    def place(self, session: str, replica_name: str) -> None:
        self.placed.append((session, replica_name))

    def replica_of(self, session: str) -> str | None:
        return dict(self.placed).get(session)

    async def health(self) -> EngineHealth:
        return EngineHealth(ok=True)


def seats_of(engine: Any, **options: Any) -> Seats:
    return Seats(engine, SchedulingOptions(**options))


async def test_runs_are_spread_over_replicas_and_stay_where_they_are() -> None:
    engine = TwoReplicas()
    seats = seats_of(engine)
    with seats.seat(ANYONE, num_ids=100, session="a") as a, seats.seat(ANYONE, num_ids=100, session="b") as b:
        for seat in (a, b):
            await seat.begin(100)
            seat.end(200)
            await seat.begin(300)
    assert sorted(engine.placed) == [("a", "one"), ("b", "two")]


async def test_a_turn_that_is_lost_goes_on_elsewhere() -> None:
    engine = TwoReplicas()
    seats = seats_of(engine)
    with seats.seat(ANYONE, num_ids=100, session="a") as seat:
        await seat.begin(100)
        engine.states["one"] = "unwell"
        await seat.lost(150)
        assert engine.placed == [("a", "one"), ("a", "two")]
        seat.end(200)
        engine.states = {"one": "ready"}  # The other one has left the pool.
        seats._look_at_replicas()
        await seat.begin(250)
    assert engine.placed[-1] == ("a", "one")
    assert seats.num_running == 0


async def test_a_prompt_for_a_replica_that_is_down_may_come_again() -> None:
    engine = TwoReplicas(tokens={"one": 1_000})
    seats = seats_of(engine)
    engine.states["two"] = "unwell"
    seats._look_at_replicas()
    with pytest.raises(NoSlotError) as later, seats.seat(ANYONE, num_ids=5_000):
        pass
    assert not isinstance(later.value, PromptTooLargeError)
    with pytest.raises(PromptTooLargeError), seats.seat(ANYONE, num_ids=20_000):
        pass


async def test_later_turns_go_first_then_older_runs() -> None:
    seats = seats_of(StageEngine())
    with seats.seat(ANYONE) as first:
        one = await first.begin(10)
        await asyncio.sleep(0.005)
        with seats.seat(ANYONE) as second:
            assert one < await second.begin(10)
            second.end(20)
            assert await second.begin(30) < one


async def test_a_seat_in_the_queue_expires_and_another_starts() -> None:
    async with seats_of(StageEngine(), max_runs=1) as seats:
        with seats.seat(ANYONE), seats.seat(ANYONE, deadline_s=0.01) as waiting, seats.seat(ANYONE) as patient:
            with pytest.raises(SeatExpiredError):
                await waiting.begin(1)
            async with aclosing(patient.places()) as places:
                assert await anext(places) == 0


async def test_an_error_does_not_stop_the_clock(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searchr1.gateway.runs.seats.TICK_S", 0.005)
    seats, broken = seats_of(StageEngine(), max_runs=1), [RuntimeError("no tick"), RuntimeError("no tick")]
    tick = seats._scheduler.tick

    def ticks(now: float) -> list[Decision]:
        if broken:
            raise broken.pop()
        return tick(now)

    monkeypatch.setattr(seats._scheduler, "tick", ticks)
    async with seats:
        with seats.seat(ANYONE), seats.seat(ANYONE, deadline_s=0.001) as waiting, pytest.raises(SeatExpiredError):
            await waiting.begin(1)
    assert caplog.text.count("the clock of the seats") == 2


async def test_a_refused_seat_leaves_nothing() -> None:
    seats = seats_of(StageEngine(), max_runs=1, max_queued=0)
    with seats.seat(Caller("acme", "k")):
        assert not seats.has_room(ANYONE)
        for _ in range(3):
            with pytest.raises(NoSlotError), seats.seat(ANYONE):
                pass
            with pytest.raises(NoSlotError):
                seats.check_room(ANYONE)
    assert seats.has_room(ANYONE)
    seats.check_room(ANYONE)
    assert (seats.num_running, seats.num_queued, seats._seats) == (0, 0, {})
