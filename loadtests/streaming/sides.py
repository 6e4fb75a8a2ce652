"""The ways to ask that are compared, the servers behind them, and one client of a stream."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.paced_stack import NO_LIMITS, gateway_before
from loadtests.processes import Server, free_port, running
from loadtests.streaming.paced_engine import MODEL

_QUESTION = "Which currency is used in Mali?"
_NO_KEY = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"
_CHAT_BODY = {"model": MODEL, "messages": [{"role": "user", "content": _QUESTION}], "stream": True}
_RESPONSES_BODY = {"model": MODEL, "input": _QUESTION, "stream": True, "store": False}
_NATIVE_BODY = {"question": _QUESTION, "stream": True}


@dataclass(frozen=True)
class Way:
    """A way to ask: a path, a body, and what marks the first text of an answer and its good end."""

    name: str
    path: str
    body: dict[str, Any]
    first: bytes
    last: bytes


CHAT = Way("chat", _CHAT, _CHAT_BODY, b'"reasoning":"', b"[DONE]")
EACH_TOKEN = Way("chat, each token", _CHAT, {**_CHAT_BODY, "stream_interval_ms": 0}, b'"reasoning":"', b"[DONE]")
RESPONSES = Way("responses", _RESPONSES, _RESPONSES_BODY, b"reasoning_text.delta", b"response.completed")
NATIVE = Way("native", "/v1/research", _NATIVE_BODY, b'"type":"think.delta"', b"answer.completed")
_LITELLM = Way("LiteLLM's proxy, chat", _CHAT, _CHAT_BODY, b'"content":"', b"[DONE]")
_AGENTIC = Way("agentic-api, chat", _CHAT, _CHAT_BODY, b'"content":"', b"[DONE]")

Start = Callable[[Server, Path], AbstractContextManager[Server]]
"""Starts a server before an engine, with its log in a folder."""


@dataclass(frozen=True)
class Program:
    """A server that is compared, and the ways to ask it."""

    start: Start
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Streamed:
    """What one client saw."""

    num_reads: int
    first_text_s: float
    ended_well: bool


def workers(num_workers: int, redis_url: str) -> Program:
    """Return a gateway of so many workers, asked for chat alone."""

    def start(engine: Server, logs: Path) -> AbstractContextManager[Server]:
        settings = {**NO_LIMITS, "workers": str(num_workers), "redis_url": redis_url}
        return gateway_before([engine.url], logs, name=f"gateway-{num_workers}", settings=settings)

    return Program(start, (replace(CHAT, name=f"chat, workers: {num_workers}"),))


def programs(*, litellm: str | None = None, agentic: str | None = None) -> list[Program]:
    """Return what is compared: the gateway, and the programs of others at these paths."""
    found = [Program(_gateway, (CHAT, EACH_TOKEN, RESPONSES, NATIVE))]
    if litellm is not None:
        found.append(Program(lambda engine, logs: _started_litellm(litellm, engine, logs), (_LITELLM,)))
    if agentic is not None:
        found.append(Program(lambda engine, logs: _started_agentic(agentic, engine, logs), (_AGENTIC,)))
    return found


async def stream(
    session: aiohttp.ClientSession, url: str, way: Way, on_text: Callable[[], None] = lambda: None
) -> Streamed:
    """Ask once and read to the end, without parsing. ``on_text`` is called at the first text."""
    started, first_s, num_reads, tail = time.perf_counter(), math.nan, 0, b""
    async with session.post(url + way.path, json=way.body) as response:
        response.raise_for_status()
        async for data in response.content.iter_any():
            num_reads += 1
            if math.isnan(first_s) and way.first in data:
                first_s = time.perf_counter() - started
                on_text()
            tail = (tail + data)[-8192:]
    return Streamed(num_reads, first_s, way.last in tail)


def _gateway(engine: Server, logs: Path) -> AbstractContextManager[Server]:
    return gateway_before([engine.url], logs)


def _started_litellm(program: str, engine: Server, logs: Path) -> AbstractContextManager[Server]:
    port, config = free_port(), logs / "litellm.json"
    served = {"model": f"hosted_vllm/{MODEL}", "api_base": f"{engine.url}/v1", "api_key": "none"}
    # JSON is YAML.
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": served}]}), "utf-8")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", _NO_KEY: "true"}
    return running(command, port, ready="/health/liveliness", log=logs / "litellm.log", environment=quiet)


def _started_agentic(program: str, engine: Server, logs: Path) -> AbstractContextManager[Server]:
    port = free_port()
    command = [program, "--llm-api-base", engine.url, "--gateway-host", "127.0.0.1", "--gateway-port", str(port)]
    command += ["--skip-llm-ready-check", "--db-url", f"sqlite://{logs}/agentic.db?mode=rwc"]
    return running(command, port, ready="/health", log=logs / "agentic.log", environment={"HOME": str(logs)})
