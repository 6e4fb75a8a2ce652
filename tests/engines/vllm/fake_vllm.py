"""An HTTP server that speaks vLLM's wire without a model, in the shape that vLLM 0.32 was recorded sending."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from aiohttp import web
from multidict import CIMultiDictProxy

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.types import Encode

MODEL = "fake"


class Fault(Enum):
    """What goes wrong, in every completion until ``FakeVllm.fault`` is None again."""

    REFUSE_BUSY = "503"
    REFUSE_RATE = "429"
    REFUSE_BROKEN = "500"
    REFUSE_REQUEST = "400"
    DROP = "the connection is cut after two chunks"
    ERROR_IN_STREAM = "an error event after two chunks, then [DONE]"
    BUSY_IN_STREAM = "an error event with code 503, then [DONE]"
    UNFINISHED = "the stream ends in good form after two chunks, without a finish reason"
    GARBAGE = "an event that is not JSON"
    STALL = "silence after two chunks"
    DRIP = "one byte a second after two chunks"


@dataclass(frozen=True)
class Answer:
    """Any answer at all, in place of the right one."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    """Write the body over and over until the client leaves."""
    then: Literal["end", "hang", "cut"] = "end"
    delay_s: float = 0.0
    """Before the head."""


Model = Callable[[Sequence[int], SamplingParams], list[Chunk]]
"""The chunks of a completion for a prompt's ids."""

_REFUSALS = {
    Fault.REFUSE_BUSY: (503, "The engine is currently busy"),
    Fault.REFUSE_RATE: (429, "Too many requests"),
    Fault.REFUSE_BROKEN: (500, "EngineCore encountered an issue"),
    Fault.REFUSE_REQUEST: (400, "max_tokens must be at least 1, got 0."),
}


@dataclass
class FakeVllm:
    """Replays ``completions``, one a request, each text of a sequence as one chunk; or it samples from ``model``.

    A stop string cuts the text but not the ids, as in vLLM. ``max_tokens`` cuts the ids but, without a decoder here,
    not the text of the chunk that meets it.
    """

    completions: Iterator[str | Sequence[str]]
    encode: Encode
    url: str = ""
    fault: Fault | None = None
    model: "Model | None" = None
    """What samples instead of ``completions``, a chunk an event and ``pause_s`` between them."""
    fault_of: "Callable[[int], Fault | None]" = lambda _: None
    """The fault of a completion by its number, from 0; before ``fault``."""
    takes_weights: bool = False
    """Answer what its owner tells it to do, as a server in development mode does."""
    fails_at_weights: bool = False
    weights_version: str = "default"
    """What it says that its weights are called."""
    told: list[tuple[str, str]] = field(default_factory=list)
    """Address and path of what its owner told it, and of completions meanwhile."""
    num_blocks: int | None = None
    """KV blocks of 16 tokens that its metrics tell."""
    fails_metrics: bool = False
    num_cached_tokens: int | None = 0
    """In the usage of each completion; None leaves it out, as a server without prompt tokens details does."""
    bytes_per_write: int | None = None
    """Cut the stream into writes of this size, to the disregard of events."""
    pause_s: float = 0.0
    """Between two writes."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """By path; what is not here is answered as vLLM does."""
    refusals: list[Answer] = field(default_factory=list)
    """Answers to the next completions, one each, before they are served again."""
    max_model_len: int | None = 4096
    steps: int = 0
    """What the metrics count."""
    num_probes: Counter[str] = field(default_factory=Counter)
    """Requests by path, of what is no completion."""
    num_bytes_sent: int = 0
    """By ``answers`` and ``refusals``."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[CIMultiDictProxy[str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    """The client's port of each completion: equal ports are one connection."""
    num_running: int = 0
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while a completion runs."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no completion runs any more."""

    @property
    def prompts(self) -> list[list[int]]:
        """The ids of each request, in order."""
        return [body["prompt"] for body in self.bodies]


@asynccontextmanager
async def serve_fake_vllm(
    completions: Iterable[str | Sequence[str]],
    *,
    encode: Encode,
    host: str = "127.0.0.1",
    port: int = 0,
    model: Model | None = None,
) -> AsyncIterator[FakeVllm]:
    """Serve until the block ends, on a port of its own choice where ``port`` is 0."""
    fake = FakeVllm(iter(completions), encode, model=model)
    app = web.Application()
    app.add_routes(
        [
            web.post("/v1/completions", _completions(fake)),
            web.get("/v1/models", _models(fake)),
            web.get("/health", _health(fake)),
            web.get("/metrics", _metrics(fake)),
        ]
    )
    for path in ("/pause", "/collective_rpc", "/update_weight_version", "/resume"):
        app.router.add_post(path, _told(fake))
    app.router.add_get("/weight_info", _weight_info(fake))
    for path in ("/version", "/tokenize", "/server_info"):
        app.router.add_route("*", path, _probe(fake, lambda: web.Response(status=404)))
    app.router.add_get("/elsewhere", _elsewhere(fake))
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    fake.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "InternalServerError", "param": None, "code": code}}


def _completions(fake: FakeVllm) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        fake.bodies.append(body)
        fake.headers.append(request.headers)
        fake.told.append((fake.url, request.path))
        assert request.transport is not None
        fake.ports.append(request.transport.get_extra_info("peername")[1])
        if fake.refusals or request.path in fake.answers:
            answer = fake.refusals.pop(0) if fake.refusals else fake.answers[request.path]
            return await _answer(fake, request, answer)
        fault = fake.fault_of(len(fake.bodies) - 1) or fake.fault
        if fault in _REFUSALS:
            status, message = _REFUSALS[fault]
            return web.json_response(_error(status, message), status=status)
        fake.num_running += 1
        fake.busy.set()
        fake.idle.clear()
        try:
            if fake.model is not None:
                return await _stream_of(fake.model, fake, request, body, fault)
            return await _stream(fake, request, body)
        finally:
            fake.num_running -= 1
            if not fake.num_running:
                fake.busy.clear()
                fake.idle.set()

    return handle


async def _stream(fake: FakeVllm, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    chunks = list(_chunks(fake, body))
    events = [_event(body, choices=[chunk], usage=None) for chunk in chunks]
    if fake.fault is not None:
        events = events[:2]
    if fake.fault is Fault.ERROR_IN_STREAM:
        events.append(json.dumps(_error(500, "EngineCore encountered an issue.")))
    elif fake.fault is Fault.BUSY_IN_STREAM:
        events = [json.dumps(_error(503, "The engine is currently busy"))]
    elif fake.fault is Fault.GARBAGE:
        events.append('{"choices": [')
    elif fake.fault is None:
        events.append(_event(body, choices=[], usage=_usage(fake, body, chunks)))
    if fake.fault not in (Fault.DROP, Fault.UNFINISHED, Fault.STALL):
        events.append("[DONE]")
    await _write(response, "".join(f"data: {event}\n\n" for event in events).encode(), fake)
    if fake.fault is Fault.DROP:
        assert request.transport is not None
        request.transport.abort()
    elif fake.fault is Fault.STALL:
        await asyncio.Event().wait()
    return response


async def _stream_of(
    model: Model, fake: FakeVllm, request: web.Request, body: dict[str, Any], fault: Fault | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    params = SamplingParams(body["max_tokens"], tuple(body["stop"]), stream_interval=body.get("stream_interval", 1))
    choices = []
    for number, chunk in enumerate(model(body["prompt"], params)):
        choices.append(_choice(body, chunk.text, list(chunk.token_ids), chunk.finish, None, first=number == 0))
        data = f"data: {_event(body, choices=[choices[-1]], usage=None)}\n\n".encode()
        if fault is not None and number == 2:
            return await _broken(response, request, fault, data)
        await response.write(data)
        fake.steps += 1
        await asyncio.sleep(fake.pause_s)
    await response.write(f"data: {_event(body, choices=[], usage=_usage(fake, body, choices))}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def _broken(response: web.StreamResponse, request: web.Request, fault: Fault, data: bytes) -> web.StreamResponse:
    if fault is Fault.DROP:
        assert request.transport is not None
        await response.write(data[: len(data) // 2])
        request.transport.abort()
    elif fault is Fault.STALL:
        await asyncio.Event().wait()
    elif fault is Fault.DRIP:
        for byte in data:
            await response.write(bytes([byte]))
            await asyncio.sleep(1.0)
    elif fault is Fault.ERROR_IN_STREAM:
        await response.write(f"data: {json.dumps(_error(500, 'EngineCore encountered an issue.'))}\n\n".encode())
    return response


async def _write(response: web.StreamResponse, data: bytes, fake: FakeVllm) -> None:
    size = fake.bytes_per_write or len(data)
    for start in range(0, len(data), size):
        await response.write(data[start : start + size])
        await asyncio.sleep(fake.pause_s)


def _chunks(fake: FakeVllm, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    completion = next(fake.completions)
    texts = [completion] if isinstance(completion, str) else list(completion)
    text, num_ids = "", 0
    for i, piece in enumerate(texts):
        ids = fake.encode(piece)[: body["max_tokens"] - num_ids]
        num_ids += len(ids)
        before, text = text, text + piece
        stop = _first_stop(text, body["stop"])
        if stop is not None:
            piece = text[len(before) : stop[1]]
        full = num_ids >= body["max_tokens"]
        finish = "stop" if stop is not None else "length" if full else "stop" if i == len(texts) - 1 else None
        yield _choice(body, piece, ids, finish, stop[0] if stop is not None else None, first=i == 0)
        if finish is not None:
            return


def _first_stop(text: str, stops: Sequence[str]) -> tuple[str, int] | None:
    """The stop string that ends first in ``text``, and where it ends."""
    ends = [(text.index(stop) + len(stop), stop) for stop in stops if stop in text]
    return (min(ends)[1], min(ends)[0]) if ends else None


def _choice(
    body: dict[str, Any], text: str, ids: list[int], finish: str | None, stop: str | None, *, first: bool
) -> dict[str, Any]:
    logprobs = None
    if body.get("logprobs") is not None:
        logprobs = {"text_offset": [0] * len(ids), "token_logprobs": [-0.5] * len(ids), "tokens": [""] * len(ids)}
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish, "stop_reason": stop}
    if body.get("return_token_ids"):
        choice |= {"prompt_token_ids": body["prompt"] if first else None, "token_ids": ids}
    return choice


def _usage(fake: FakeVllm, body: dict[str, Any], chunks: list[dict[str, Any]]) -> dict[str, Any]:
    prompt, completion = len(body["prompt"]), sum(len(chunk["token_ids"]) for chunk in chunks)
    usage: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + completion}
    usage["completion_tokens"] = completion
    if fake.num_cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": fake.num_cached_tokens}
    return usage


def _event(body: dict[str, Any], **rest: Any) -> str:
    shared = {"id": "cmpl-fake", "object": "text_completion", "created": 1795367051, "model": body["model"]}
    return json.dumps({name: value for name, value in (shared | rest).items() if value is not None})


async def _answer(fake: FakeVllm, request: web.Request, answer: Answer) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    fake.num_running += 1
    fake.busy.set()
    fake.idle.clear()
    try:
        await asyncio.sleep(answer.delay_s)
        await response.prepare(request)
        await response.write(answer.body)
        fake.num_bytes_sent += len(answer.body)
        while answer.endless:
            await response.write(answer.body)
            fake.num_bytes_sent += len(answer.body)
            await asyncio.sleep(0)
        if answer.then == "hang":
            await asyncio.Event().wait()
        elif answer.then == "cut":
            assert request.transport is not None
            request.transport.abort()
    finally:
        fake.num_running -= 1
        if not fake.num_running:
            fake.busy.clear()
            fake.idle.set()
    return response


def _told(fake: FakeVllm) -> Any:
    async def handle(request: web.Request) -> web.Response:
        if not fake.takes_weights:
            return web.Response(status=404)
        fake.told.append((fake.url, request.path))
        if request.path == "/update_weight_version":
            fake.weights_version = (await request.json())["new_version"]
        return web.Response(status=500 if fake.fails_at_weights and request.path == "/collective_rpc" else 200)

    return handle


def _weight_info(fake: FakeVllm) -> Any:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"weight_version": fake.weights_version}, status=200 if fake.takes_weights else 404)

    return handle


def _elsewhere(fake: FakeVllm) -> Any:
    async def handle(request: web.Request) -> web.Response:
        fake.num_probes[request.path] += 1
        return web.json_response({})

    return handle


def _probe(fake: FakeVllm, respond: Callable[[], web.Response]) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        fake.num_probes[request.path] += 1
        if request.path in fake.answers:
            return await _answer(fake, request, fake.answers[request.path])
        return respond()

    return handle


def _models(fake: FakeVllm) -> Any:
    def respond() -> web.Response:
        model = {"id": MODEL, "object": "model", "max_model_len": fake.max_model_len}
        return web.json_response({"object": "list", "data": [model]})

    return _probe(fake, respond)


def _health(fake: FakeVllm) -> Any:
    return _probe(fake, lambda: web.Response(status=503 if fake.fault is Fault.REFUSE_BROKEN else 200))


def _metrics(fake: FakeVllm) -> Any:
    def respond() -> web.Response:
        if fake.fails_metrics:
            return web.Response(status=500)
        labels = '{engine="0",model_name="fake"}'
        blocks = ""
        if fake.num_blocks is not None:
            config = f'block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="{fake.num_blocks}"'
            blocks = f"vllm:cache_config_info{{{config}}} 1.0\nvllm:kv_cache_usage_perc{labels} 0.25\n"
        return web.Response(
            text=f"vllm:num_requests_running{labels} {float(fake.num_running)}\n"
            f"vllm:generation_tokens_total{labels} {float(fake.steps)}\n" + blocks
        )

    return _probe(fake, respond)
