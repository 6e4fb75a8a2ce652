"""The rolling update in small, once; and what its clients take for a failure."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from loadtests.faults.stack import running_stack
from loadtests.processes import program_path
from loadtests.proxies import front
from loadtests.rolling.__main__ import Outcome, Restart, gateway_ports, update
from loadtests.rolling.asking import WAYS, Asker, FailedError
from tests.engines.pool.questions import answer_of

NUMBER = 4
SETTLE_S = 6.0
"""Above what Envoy takes to see that a gateway is back."""


def chat_answer(text: str) -> str:
    return json.dumps({"choices": [{"message": {"content": text}}]})


def chat_chunks(*texts: str, end: str = "data: [DONE]\n\n") -> str:
    chunks = (json.dumps({"choices": [{"delta": {"content": text}}]}) for text in texts)
    return "".join(f"data: {chunk}\n\n" for chunk in chunks) + end


def response_of(text: str) -> dict[str, object]:
    return {"output": [{"type": "reasoning"}, {"type": "message", "content": [{"text": text}]}]}


def response_events(kind: str, text: str) -> str:
    return f"data: {json.dumps({'type': kind, 'response': response_of(text)})}\n\n"


@asynccontextmanager
async def answering(status: int, body: str) -> AsyncIterator[Asker]:
    """Give one who asks a server that always answers like that."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            status=status, text=body, content_type="application/json" if body[0] == "{" else "text/plain"
        )

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Asker(http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


RIGHT = answer_of(NUMBER)


@pytest.mark.parametrize(
    ("way", "body"),
    [
        ("chat", chat_answer(RIGHT)),
        ("chat, stream", chat_chunks(RIGHT[:3], RIGHT[3:])),
        ("responses", json.dumps(response_of(RIGHT))),
        ("responses, stream", response_events("response.completed", RIGHT)),
    ],
)
async def test_a_whole_and_right_answer_is_taken(way: str, body: str) -> None:
    async with answering(200, body) as asker:
        await WAYS[way](asker, NUMBER)


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_a_failure(way: str) -> None:
    async with answering(503, '{"error": {}}') as asker:
        with pytest.raises(FailedError, match="503"):
            await WAYS[way](asker, NUMBER)


@pytest.mark.parametrize(
    ("way", "body"),
    [
        ("chat", chat_answer(RIGHT[:-1])),
        ("chat, stream", chat_chunks(RIGHT, end="")),
        ("chat, stream", chat_chunks(RIGHT[3:])),
        ("responses", json.dumps(response_of("another"))),
        ("responses, stream", response_events("response.failed", RIGHT)),
        ("responses, stream", response_events("response.completed", "another")),
        ("native, stream", 'data: {"seq": 0, "type": "run.queued"}\n\n'),
    ],
)
async def test_what_is_lost_or_wrong_is_a_failure(way: str, body: str) -> None:
    async with answering(200, body) as asker:
        with pytest.raises(FailedError):
            await WAYS[way](asker, NUMBER)


def test_gateways_end_by_themselves() -> None:
    outcome = Outcome(restarts=[Restart("gateway 1", 1.0, 0), Restart("engine 1", 1.0, -15)])
    assert outcome.is_clean
    outcome.restarts.append(Restart("gateway 2", 1.0, -9))
    assert not outcome.is_clean


@pytest.mark.process
@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(program_path("envoy") is None, reason="needs envoy: scripts/setup-deploy")
def test_clients_see_nothing_of_a_rolling_update(tmp_path: Path) -> None:
    with (
        running_stack(tmp_path, settings={"SEARCHR1_OPEN": "true"}) as stack,
        front("envoy", tmp_path, gateway_ports(stack)) as proxy,
    ):
        outcome = asyncio.run(update(stack, proxy, at_once=4, settle_s=SETTLE_S))
    assert len(outcome.restarts) == 4
    assert outcome.num_asked.keys() == WAYS.keys()
    assert outcome.is_clean, outcome.lines()
