"""From a conversation to the question, on every surface: folded, rewritten, the last alone, without instructions."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.retry_budget import RetryBudget
from searchr1.errors import EngineUnavailableError
from searchr1.gateway.runs.question import question_of
from searchr1.gateway.runs.rewrite import MAX_CHARS, MAX_TOKENS, open_rewriter
from searchr1.identity import ANYONE
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.stored_key import StoredLimits, made_key
from searchr1.loop.conversation import Turn
from searchr1.loop.types import TokenIds
from tests.gateway.conftest import (
    ANSWER_TURN,
    MODEL,
    SEARCH_TURN,
    Stage,
    StageEngine,
    byte_tokenizer,
    eventually,
    running_stage,
)

REWRITTEN = "Which currency is used in Mali?"
FOLDED = "Given this conversation:\nuser: Where is Timbuktu?\nassistant: Mali\n\nAnd its currency?"
CHAT = [
    {"role": "user", "content": "Where is Timbuktu?"},
    {"role": "assistant", "content": "Mali"},
    {"role": "user", "content": "And its currency?"},
]
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


async def by_chat(stage: Stage, messages: list[dict[str, str]]) -> None:
    response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
    assert response.status_code == 200, response.text


async def by_responses(stage: Stage, messages: list[dict[str, str]]) -> None:
    response = await stage.client.post("/v1/responses", json={"model": MODEL, "input": messages})
    assert response.status_code == 200, response.text


async def by_previous_response(stage: Stage, messages: list[dict[str, str]]) -> None:
    *earlier, last = messages
    first = await stage.client.post("/v1/responses", json={"model": MODEL, "input": earlier[0]["content"]})
    body = {"model": MODEL, "input": last["content"], "previous_response_id": first.json()["id"]}
    response = await stage.client.post("/v1/responses", json=body)
    assert response.status_code == 200, response.text


async def by_previous_run(stage: Stage, messages: list[dict[str, str]]) -> None:
    *earlier, last = messages
    first = await stage.client.post("/v1/research", json={"question": earlier[0]["content"]})
    body = {"question": last["content"], "previous_run_id": first.json()["id"]}
    response = await stage.client.post("/v1/research", json=body)
    assert response.status_code == 200, response.text


def asked(stage: Stage, number: int = -1) -> str:
    """The question in a prompt that the engine was given."""
    text = stage.services.default.tokenizer.decode(stage.engine.prompts[number])
    return text.partition("Question: ")[2].rpartition("\nassistant")[0].strip()


@asynccontextmanager
async def rewriting_stage(engine: StageEngine, **settings: Any) -> AsyncIterator[Stage]:
    async with running_stage(engine=engine, conversation="rewrite", **settings) as stage:
        services = stage.services
        async with open_rewriter(services.settings, engine, services.default.tokenizer, RetryBudget()) as rewriter:
            services.default.rewriter = rewriter
            yield stage


@asynccontextmanager
async def openai_server(answer: Callable[[dict[str, Any]], web.Response]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that answers chat completions; yields its base URL and the requests that it took."""
    taken: list[Any] = []

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        taken.append((request.headers.get("Authorization"), body))
        return answer(body)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    async with TestServer(app, host="127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.port}", taken


def completion(content: str | None) -> web.Response:
    return web.json_response({"choices": [{"message": {"role": "assistant", "content": content}}]})


def rewrites(stage: Stage) -> dict[str, float]:
    lines = stage.services.metrics.render().decode().splitlines()
    found = [line for line in lines if line.startswith("searchr1_rewrites_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


@pytest.mark.parametrize("ask", [by_chat, by_responses])
@pytest.mark.parametrize(
    ("settings", "question"),
    [
        ({}, f"Follow these instructions:\n{SYSTEM['content']}\n\n{FOLDED}"),
        ({"system": "ignore"}, FOLDED),
        ({"conversation": "last", "system": "ignore"}, "And its currency?"),
        ({"conversation": "last"}, f"Follow these instructions:\n{SYSTEM['content']}\n\nAnd its currency?"),
    ],
)
async def test_each_setting_asks_its_own_question(ask: Any, settings: dict[str, Any], question: str) -> None:
    async with running_stage(**settings) as stage:
        await ask(stage, [SYSTEM, *CHAT])
        assert asked(stage, 0) == question


@pytest.mark.parametrize("ask", [by_previous_response, by_previous_run])
@pytest.mark.parametrize(
    ("conversation", "question"),
    [("fold", FOLDED.replace("Mali", "West African CFA franc")), ("last", "And its currency?")],
)
async def test_a_follow_up_of_a_stored_run_goes_the_same_way(ask: Any, conversation: str, question: str) -> None:
    async with running_stage(conversation=conversation) as stage:
        await ask(stage, CHAT)
        assert asked(stage) == question


@pytest.mark.parametrize("ask", [by_chat, by_responses])
@pytest.mark.parametrize(
    "written",
    [
        REWRITTEN,
        f" {REWRITTEN}\n",
        f'"{REWRITTEN}"',
        f"Question: {REWRITTEN}",
        f"<think> It is about Mali. </think>\n\n{REWRITTEN}",
        f"{REWRITTEN}\nuser: And in Chad?",
    ],
)
async def test_the_served_model_rewrites_the_last_message(ask: Any, written: str) -> None:
    engine = StageEngine(completions=[written, SEARCH_TURN, ANSWER_TURN])
    async with rewriting_stage(engine, system="ignore") as stage:
        await ask(stage, [SYSTEM, *CHAT])
        prompt = stage.services.default.tokenizer.decode(engine.prompts[0])
        assert "user: Where is Timbuktu?\nassistant: Mali\n\nLast message: And its currency?" in prompt
        assert asked(stage, 1) == REWRITTEN
        assert rewrites(stage) == {"rewritten": 1.0}
        assert stage.services.default.seats.num_running == 0


@pytest.mark.parametrize("ask", [by_previous_response, by_previous_run])
async def test_a_follow_up_of_a_stored_run_is_rewritten(ask: Any) -> None:
    engine = StageEngine(completions=[SEARCH_TURN, ANSWER_TURN, REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    async with rewriting_stage(engine) as stage:
        await ask(stage, CHAT)
        assert asked(stage, 3) == REWRITTEN


async def test_a_question_without_a_conversation_is_not_rewritten() -> None:
    async with rewriting_stage(StageEngine()) as stage:
        await by_chat(stage, [SYSTEM, CHAT[0]])
        assert rewrites(stage) == {}
        assert asked(stage, 0).endswith("\n\nWhere is Timbuktu?")


async def test_any_openai_server_rewrites() -> None:
    async with openai_server(lambda _: completion(REWRITTEN)) as (url, taken):
        given = {"rewrite_url": url, "rewrite_model": "small", "rewrite_api_key": "s3cret", "system": "ignore"}
        async with rewriting_stage(StageEngine(), **given) as stage:
            await by_chat(stage, CHAT)
            assert asked(stage, 0) == REWRITTEN
    [(key, body)] = taken
    assert key == "Bearer s3cret"
    assert body["model"] == "small"
    assert body["messages"][0]["content"].endswith("Last message: And its currency?\n\nRewritten question:")


UNUSABLE: list[tuple[str, Callable[[dict[str, Any]], web.Response]]] = [
    ("empty", lambda _: completion("")),
    ("nothing", lambda _: completion(None)),
    ("blank", lambda _: completion(" \n ")),
    ("punctuation", lambda _: completion("...")),
    ("only a thought", lambda _: completion("<think> hm </think>")),
    ("too long", lambda _: completion("why " * MAX_CHARS)),
    ("reserved text", lambda _: completion("What is <|im_start|>?")),
    ("control characters", lambda _: completion("What is\x07 it?")),
    ("no choices", lambda _: web.json_response({"choices": []})),
    ("another shape", lambda _: web.json_response({"text": REWRITTEN})),
    ("no JSON", lambda _: web.Response(text="<html>")),
    ("an error", lambda _: web.json_response({"error": {"message": "boom s3cret"}}, status=500)),
    ("no key", lambda _: web.json_response({"error": "key"}, status=401)),
    ("elsewhere", lambda _: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"})),
]


@pytest.mark.parametrize("answer", [answer for _, answer in UNUSABLE], ids=[name for name, _ in UNUSABLE])
async def test_a_failed_rewriting_folds_and_is_logged_and_counted(
    answer: Callable[[dict[str, Any]], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    async with openai_server(answer) as (url, _):
        given = {"rewrite_url": url + "/v1", "rewrite_model": "small", "rewrite_api_key": "s3cret"}
        async with rewriting_stage(StageEngine(), **given) as stage:
            with caplog.at_level(logging.WARNING, "searchr1"):
                await by_chat(stage, CHAT)
            assert asked(stage, 0) == FOLDED
            assert rewrites(stage) == {"failed": 1.0}
    [record] = [record for record in caplog.records if record.name.endswith("question")]
    assert "was folded" in record.getMessage()
    assert "s3cret" not in record.getMessage()
    assert url not in record.getMessage()


async def test_a_server_that_is_not_there_folds() -> None:
    async with rewriting_stage(StageEngine(), rewrite_url="http://127.0.0.1:9", rewrite_model="small") as stage:
        await by_chat(stage, CHAT)
        assert asked(stage, 0) == FOLDED


async def test_a_rewriting_that_takes_too_long_folds_and_its_time_is_the_runs() -> None:
    hold = asyncio.Event()
    engine = StageEngine(completions=[REWRITTEN, SEARCH_TURN, ANSWER_TURN], hold=hold)
    async with rewriting_stage(engine, rewrite_timeout_s=0.3) as stage:
        plan = stage.services.default.admission.plan
        seen: list[float] = []

        def spying(*args: Any, **kwargs: Any) -> Any:
            hold.set()
            made = plan(*args, **kwargs)
            assert made.options.deadline_s is not None
            seen.append(made.options.deadline_s)
            return made

        stage.services.default.admission.plan = spying  # type: ignore[method-assign]
        await by_chat(stage, CHAT)
        assert asked(stage, 1) == FOLDED
        assert rewrites(stage) == {"failed": 1.0}
        assert seen[0] <= stage.services.settings.deadline_s - 0.3
        assert engine.num_open == 0


async def test_an_engine_that_is_down_fails_the_run_and_not_the_rewriting_alone() -> None:
    engine = StageEngine(error=EngineUnavailableError("down"))
    async with rewriting_stage(engine) as stage:
        response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT})
        assert response.status_code == 503
        assert json.loads(response.text)["error"]["code"] == "engine_unavailable"


async def test_a_rewriting_takes_a_slot_of_a_run() -> None:
    async with rewriting_stage(StageEngine(), max_concurrent_runs=1) as stage:
        with stage.services.default.seats.seat(ANYONE):
            response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, "messages": CHAT})
        assert response.status_code == 503
        assert stage.engine.prompts == []


async def test_a_rewriting_holds_its_prompt_and_the_tokens_that_it_may_write() -> None:
    engine = StageEngine(completions=[REWRITTEN, SEARCH_TURN, ANSWER_TURN], hold=asyncio.Event())
    async with rewriting_stage(engine) as stage:
        chat = asyncio.create_task(by_chat(stage, CHAT))
        await eventually(lambda: engine.num_open == 1)
        [replica] = stage.services.default.seats._scheduler._replicas
        assert replica.footprint_tokens == len(engine.prompts[0])
        assert replica.reserved_tokens == len(engine.prompts[0]) + MAX_TOKENS
        assert engine.hold is not None
        engine.hold.set()
        await chat
        assert rewrites(stage) == {"rewritten": 1.0}


LIMIT = 100_000
"""Tokens a day of the key in ``taken_by_rewriting``."""


async def taken_by_rewriting(key_file: Path, engine: StageEngine, **given: Any) -> tuple[int, int]:
    """Tokens in and out that a follow-up costs its key beside what both runs say; its limit and its usage agree."""
    text, key = made_key("one", now=1, limits=StoredLimits(tokens_per_day=LIMIT))
    await KeyFile(key_file).add(key)
    async with rewriting_stage(engine, keys_file=key_file, **given) as stage:
        stage.client.headers["Authorization"] = f"Bearer {text}"
        first = (await stage.client.post("/v1/research", json={"question": CHAT[0]["content"]})).json()
        body = {"question": CHAT[2]["content"], "previous_run_id": first["id"]}
        second = await stage.client.post("/v1/research", json=body)
        usage = (await stage.services.access.usage.read())[key.id]
        after = await stage.client.post("/v1/research", json={"question": "Mali?"})
    assert usage.runs == 2
    assert int(after.headers["x-ratelimit-remaining-tokens"]) == LIMIT - usage.tokens_in - usage.tokens_out
    costs = [first["usage"], second.json()["usage"]]
    tokens_in = sum(cost["prompt_tokens"] + cost["observation_tokens"] for cost in costs)
    return usage.tokens_in - tokens_in, usage.tokens_out - sum(cost["completion_tokens"] for cost in costs)


async def test_a_rewriting_counts_for_its_key_like_a_run(tmp_path: Path) -> None:
    engine = StageEngine(completions=[SEARCH_TURN, ANSWER_TURN, REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    taken = await taken_by_rewriting(tmp_path / "keys.json", engine)
    assert taken == (len(engine.prompts[2]), len(REWRITTEN.split(" ")))


class NeverWhole(StageEngine):
    """An engine whose third completion lacks its last word for ever."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``StageEngine.generate``."""
        self.hold = asyncio.Event() if len(self.prompts) == 2 else None
        async with aclosing(super().generate(prompt_ids, params, session=session, priority=priority)) as chunks:
            async for chunk in chunks:
                yield chunk


async def test_a_rewriting_that_is_given_up_counts_as_far_as_it_came(tmp_path: Path) -> None:
    engine = NeverWhole(completions=[SEARCH_TURN, ANSWER_TURN, REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    tokens_in, tokens_out = await taken_by_rewriting(tmp_path / "keys.json", engine, rewrite_timeout_s=1.0)
    assert tokens_in == len(engine.prompts[2])
    assert 0 < tokens_out < len(REWRITTEN.split(" "))


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ({"prompt_tokens": 40, "completion_tokens": 5}, (40, 5)),
        ({"prompt_tokens": 40}, (40, 0)),
        ({"prompt_tokens": -4, "completion_tokens": "5"}, (0, 0)),
        ([], (0, 0)),
        (None, (0, 0)),
    ],
)
async def test_a_rewriting_elsewhere_counts_what_its_server_tells(
    tmp_path: Path, told: Any, taken: tuple[int, int]
) -> None:
    def answer(_: Any) -> web.Response:
        return web.json_response({"choices": [{"message": {"content": REWRITTEN}}], "usage": told})

    async with openai_server(answer) as (url, _):
        given = {"rewrite_url": url, "rewrite_model": "small"}
        assert await taken_by_rewriting(tmp_path / "keys.json", StageEngine(), **given) == taken


@dataclass
class BreakingEngine(StageEngine):
    """Breaks off after ``whole_words`` words of its first completion, and goes on where it was asked to."""

    whole_words: int = 2

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the first completion's bytes, or the rest of them."""
        self.prompts.append(prompt_ids)
        self.params.append(params)
        if len(self.prompts) > 2:
            text = self.completions[len(self.prompts) - 2]
            yield Chunk(text, (0,), "stop")
            return
        words = self.completions[0].split(" ")
        head = " ".join(words[: self.whole_words])
        if len(self.prompts) == 1:
            yield Chunk(head, tuple(byte_tokenizer().encode(head)))
            raise EngineUnavailableError("it died", passing=True)
        tail = self.completions[0].removeprefix(head)
        yield Chunk(tail, tuple(byte_tokenizer().encode(tail)), "stop")


async def test_a_rewriting_that_breaks_off_goes_on_where_it_was() -> None:
    engine = BreakingEngine(completions=[REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    async with rewriting_stage(engine) as stage:
        await by_chat(stage, CHAT)
        assert rewrites(stage) == {"rewritten": 1.0}
        head = " ".join(REWRITTEN.split(" ")[:2])
        assert engine.prompts[1] == (*engine.prompts[0], *byte_tokenizer().encode(head))
        assert asked(stage, 2) == REWRITTEN


async def test_a_rewriting_shares_no_cache_with_other_tenants() -> None:
    engine = StageEngine(completions=[REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    async with rewriting_stage(engine, engine_cache_salt=True) as stage:
        await by_chat(stage, CHAT)
        salts = {params.cache_salt for params in engine.params}
        assert len(salts) == 1
        assert None not in salts


@pytest.mark.parametrize("ask", [by_chat, by_responses])
@pytest.mark.parametrize(
    "messages",
    [
        [*CHAT[:2] * 15, CHAT[2]],
        [*[{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": "y" * 300}] * 15, CHAT[2]],
        [*CHAT[:2] * 128, CHAT[2]],
        [*CHAT[:2] * 1000, CHAT[2]],
        [{"role": "system", "content": "Be kind. " * 1000}, *CHAT],
        [{"role": "user", "content": "a <|im_start|> b"}, {"role": "assistant", "content": "?"}, CHAT[2]],
        [{"role": "user", "content": "nul \x00"}, *CHAT[1:]],
    ],
    ids=["31 turns", "31 turns of 300 characters", "257 messages", "2001 messages", "9k system", "reserved", "nul"],
)
async def test_a_long_chat_is_never_dead(ask: Any, messages: list[dict[str, str]]) -> None:
    async with running_stage() as stage:
        await ask(stage, messages)
        assert asked(stage, 0).endswith("\n\nAnd its currency?")
        assert len(stage.engine.prompts[0]) <= stage.services.settings.max_prompt_tokens


@pytest.mark.parametrize("ask", [by_chat, by_responses])
@pytest.mark.parametrize(
    ("text", "question", "outcome"),
    [
        ("And its currency?", "Which currency is used in Mali?", "rewritten"),
        ("And Lima?", "Which country is Lima in?", "rewritten"),
        ("What is the capital of Chad?", "What is the capital of Chad?", "kept"),
        ("hi there!", "hi there!?", "kept"),
        ("Who wrote Hamlet?", "Who wrote Hamlet?", "kept"),
    ],
)
async def test_the_rules_rewrite_without_a_completion(ask: Any, text: str, question: str, outcome: str) -> None:
    async with rewriting_stage(StageEngine(), rewriter="rules", system="ignore") as stage:
        messages = [SYSTEM, {"role": "user", "content": "Which country is Timbuktu in?"}, CHAT[1]]
        await ask(stage, [*messages, {"role": "user", "content": text}])
        assert asked(stage, 0) == question
        assert len(stage.engine.prompts) == 2
        assert rewrites(stage) == {outcome: 1.0}


class SmallEngine(StageEngine):
    """An engine whose KV cache holds no rewriting's prompt."""

    async def metrics_text(self) -> str:
        return 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="9"} 1.0\n'


async def test_a_rewriting_that_no_cache_holds_folds() -> None:
    async with rewriting_stage(SmallEngine()) as stage:
        model = stage.services.default
        await eventually(lambda: model.seats._replicas["engine"].capacity_tokens == 128)
        turns = [Turn(message["role"], message["content"]) for message in CHAT]
        asked_question = await question_of(turns, model, stage.services, ANYONE)
        assert asked_question.text == FOLDED
        assert rewrites(stage) == {"failed": 1.0}
