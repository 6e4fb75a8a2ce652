"""A run's time counts from its request's arrival, and what is rewritten for a candidate is rewritten once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from searchr1.engines.retry_budget import RetryBudget
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.runs.rewrite import EngineRewriter, RewriteError, Rewriting, TokenCounts
from searchr1.gateway.served_model import ServedModel
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.stored_key import made_key
from searchr1.loop.conversation import Turn
from searchr1.turns import Turns
from tests.gateway.conftest import MODEL, Stage, StageEngine, eventually, running_stage
from tests.gateway.test_candidates import ASKS, CANDIDATE, Ask, candidate, chat, conversation, filling_up, served

REWRITTEN = "Which currency is used in Chad?"
READ, SAMPLED = 40, 5
"""Tokens that a rewriting takes."""
LONG_S = 0.3
MESSAGES = ("Which currency is used in Mali?", "franc", "And in Chad?")


class CountingRewriter:
    """Writes what ``written`` says, the first one after ``LONG_S``, and counts them."""

    def __init__(self, written: str | None = REWRITTEN) -> None:
        self.written, self.num_begun = written, 0

    def prepare(self, turns: Sequence[Turn], *, cache_salt: str | None = None) -> Rewriting:
        """See ``Rewriter``."""
        taken = TokenCounts()

        async def write(seat: Turns, left_s: Callable[[], float]) -> str:
            await seat.begin(0)
            self.num_begun += 1
            taken.read, taken.sampled = READ, SAMPLED
            if self.num_begun == 1:
                await asyncio.sleep(LONG_S)
            if self.written is None:
                raise RewriteError("not today")
            return self.written

        return Rewriting(write, taken=taken)


@asynccontextmanager
async def falling(rewriter: CountingRewriter, **settings: Any) -> AsyncIterator[tuple[Stage, list[Plan]]]:
    """A stage whose candidate, which is asked for all, fills up once a run has its plan; and the plans of the other."""
    others = [candidate(1.0, max_concurrent_runs=1)]
    async with running_stage(engine=served(), others=others, conversation="rewrite", **settings) as stage:
        for model in stage.services.models:
            model.rewriter = rewriter
        plans = noting(stage.services.default)
        with filling_up(stage.services.models[CANDIDATE]):
            yield stage, plans


def noting(model: ServedModel) -> list[Plan]:
    """The plans that ``model`` makes from now on."""
    plans: list[Plan] = []
    admit = model.admission.plan

    def plan(*given: Any, **options: Any) -> Plan:
        plans.append(admit(*given, **options))
        return plans[-1]

    model.admission.plan = plan  # type: ignore[method-assign]
    return plans


def rewrites(stage: Stage) -> dict[str, float]:
    lines = stage.services.metrics.render().decode().splitlines()
    found = [line for line in lines if line.startswith("searchr1_rewrites_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


async def respond(stage: Stage, *texts: str) -> dict[str, Any]:
    body = {"model": MODEL, "input": conversation(*texts)}
    answer = await stage.client.post("/v1/responses", json=body)
    assert answer.is_success, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("ask", [chat, respond])
async def test_a_run_that_falls_to_the_stable_model_keeps_its_rewriting_and_its_time(ask: Any) -> None:
    rewriter = CountingRewriter()
    async with falling(rewriter) as (stage, plans):
        assert (await ask(stage, *MESSAGES))["model"] == MODEL
        [plan] = plans
        assert plan.question == REWRITTEN
        assert (rewriter.num_begun, rewrites(stage)) == (1, {"rewritten": 1.0})
        assert plan.options.deadline_s is not None
        assert plan.options.deadline_s <= stage.services.settings.deadline_s - LONG_S


async def test_a_rewriting_that_failed_is_not_tried_again_by_the_stable_model() -> None:
    rewriter = CountingRewriter(written=None)
    async with falling(rewriter) as (stage, plans):
        assert (await chat(stage, *MESSAGES))["model"] == MODEL
        assert plans[0].question.endswith("And in Chad?")
        assert plans[0].question.startswith("Given this conversation:")
        assert (rewriter.num_begun, rewrites(stage)) == (1, {"failed": 1.0})


async def test_a_key_pays_for_one_rewriting(tmp_path: Path) -> None:
    text, key = made_key("one", now=1)
    await KeyFile(tmp_path / "keys.json").add(key)
    async with falling(CountingRewriter(), keys_file=tmp_path / "keys.json") as (stage, _):
        stage.client.headers["Authorization"] = f"Bearer {text}"
        told = await chat(stage, *MESSAGES)
        usage = (await stage.services.access.usage.read())[key.id]
    assert told["model"] == MODEL
    assert usage.tokens_in - told["usage"]["prompt_tokens"] == READ
    assert usage.tokens_out - told["usage"]["completion_tokens"] == SAMPLED


class SmallEngine(StageEngine):
    """An engine whose KV cache holds no rewriting's prompt."""

    async def metrics_text(self) -> str:
        return 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="9"} 1.0\n'


async def test_what_is_too_large_for_the_candidate_to_rewrite_is_rewritten_by_the_stable_model() -> None:
    other = candidate(1.0)
    other.engine = SmallEngine()
    async with running_stage(engine=served(), others=[other], conversation="rewrite") as stage:
        small = stage.services.models[CANDIDATE]
        await eventually(lambda: small.seats._replicas["engine"].capacity_tokens == 128)
        small.rewriter = EngineRewriter(small.engine, small.tokenizer, RetryBudget())
        stage.services.default.rewriter = rewriter = CountingRewriter()
        plans = noting(stage.services.default)
        assert (await chat(stage, *MESSAGES))["model"] == MODEL
        assert (plans[0].question, rewriter.num_begun) == (REWRITTEN, 1)
        assert other.engine.prompts == []


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_what_happens_before_a_run_begins_is_of_its_time(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_stage(engine=served()) as stage:
        limits, plans = stage.services.access.limits, noting(stage.services.default)
        count = limits.request

        async def slow(*given: Any) -> Any:
            await asyncio.sleep(LONG_S)
            return await count(*given)

        monkeypatch.setattr(limits, "request", slow)
        await ask(stage)
        assert plans[0].options.deadline_s is not None
        assert 0 < plans[0].options.deadline_s <= stage.services.settings.deadline_s - LONG_S


async def test_the_time_of_a_replay_counts_from_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_stage(engine=served()) as stage:
        run = (await stage.client.post("/v1/research", json={"question": "Mali?"})).json()
        plans, find = noting(stage.services.default), stage.hub.find

        async def slow(*given: Any) -> Any:
            await asyncio.sleep(LONG_S)
            return await find(*given)

        monkeypatch.setattr(stage.hub, "find", slow)
        answer = await stage.client.post("/v1/research/replay", json={"run_id": run["id"]})
        assert answer.is_success, answer.text
        assert plans[0].options.deadline_s is not None
        assert plans[0].options.deadline_s <= stage.services.settings.deadline_s - LONG_S
