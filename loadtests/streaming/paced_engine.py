"""A paced engine: vLLM's wire at a fixed rate, all completions in step, as a busy GPU sends them.

    python -m loadtests.streaming.paced_engine --port 8123 --tokens-per-s 50

It costs little itself and never tires, so what stands before it shows. Every completion is the same: reasoning of
``--num-tokens`` tokens, then an answer; with ``--searches`` a run's first completions end in a query instead, and
``/retrieve`` answers one after ``--search-s`` seconds. ``/metrics`` tells how many completions are open.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from searchr1.demo.bundle import CHECKPOINT
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.tokenizer import Tokenizer

MODEL = "paced"
_THOUGHT = "I should think about what is asked here, and about what I know of it. "
ANSWER = " </think> <answer> Bamako </answer>"
SEARCH = " </think> <search> currency of Mali </search>"
_PASSAGE = {"id": "1", "contents": "Mali\nThe capital of Mali is Bamako, and its currency the West African CFA franc."}
_END_OF_OBSERVATION = SEARCH_R1.tags.observation.close
_NUM_IN_INSTRUCTIONS = SEARCH_R1.prompt("").count(_END_OF_OBSERVATION)
_CREATED = 1_760_000_000
_NUM_STEPS = 4


def tokens_of(tokenizer: Tokenizer, num_tokens: int, action: str = ANSWER) -> list[tuple[int, str]]:
    """Return a completion's tokens, each with the text that it adds."""
    thought = tokenizer.encode("<think>" + _THOUGHT * num_tokens)[:num_tokens]
    ids = [*thought, *tokenizer.encode(action)]
    return list(zip(ids, _pieces(tokenizer, ids), strict=True))


def completion_frames(tokens: Sequence[tuple[int, str]]) -> list[bytes]:
    """Return the frames of a completion, one a token, in the shape of vLLM 0.32; the last one ends it."""
    head = {"id": "cmpl-0123456789abcdef-01234567", "object": "text_completion", "created": _CREATED, "model": MODEL}
    choices = [{"index": 0, "text": piece, "logprobs": None, "token_ids": [token]} for token, piece in tokens]
    return _frames(head, choices, len(tokens))


def chat_frames(tokens: Sequence[tuple[int, str]]) -> list[bytes]:
    """Return the same as a chat completion's frames, for proxies that speak no other way."""
    head = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": _CREATED, "model": MODEL}
    choices = [{"index": 0, "delta": {"content": piece}, "logprobs": None} for _, piece in tokens]
    return _frames(head, choices, len(tokens))


def _frames(head: dict[str, Any], choices: Sequence[dict[str, Any]], num_tokens: int) -> list[bytes]:
    reasons = [*[None] * (num_tokens - 1), "stop"]
    frames = [
        _frame({**head, "choices": [{**choice, "finish_reason": reason, "stop_reason": None}]})
        for choice, reason in zip(choices, reasons, strict=True)
    ]
    usage = {"prompt_tokens": 100, "total_tokens": 100 + num_tokens, "completion_tokens": num_tokens}
    return [*frames, _frame({**head, "choices": [], "usage": usage}) + b"data: [DONE]\n\n"]


def _frame(event: object) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds."""
    texts = [tokenizer.decode(tuple(ids[: i + 1])) for i in range(len(ids))]
    return [text[len(before) :] for before, text in zip(["", *texts], texts, strict=False)]


@dataclass(frozen=True)
class Script:
    """What the engine says, and how fast."""

    tokenizer: Tokenizer
    tokens_per_s: float
    num_tokens: int
    num_searches: int = 0
    """Of each run, before its answer."""
    search_s: float = 0.0
    """Of each search."""
    spread: float = 0.0
    """Completions are longer or shorter than ``num_tokens`` by this share at most."""


class PacedEngine:
    """The server. One clock ticks for all streams: each gets its next token at each tick."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._answers, self._searches = self._said(ANSWER), self._said(SEARCH)
        self._chat = chat_frames(tokens_of(script.tokenizer, script.num_tokens))
        self._tick = asyncio.Event()
        self._num_open = 0

    def _said(self, action: str) -> list[list[bytes]]:
        """Return the frames of completions that end in ``action``, in the lengths that there are."""
        script = self._script
        steps = range(-_NUM_STEPS, _NUM_STEPS + 1) if script.spread else (0,)
        lengths = (round(script.num_tokens * (1 + script.spread * step / _NUM_STEPS)) for step in steps)
        return [completion_frames(tokens_of(script.tokenizer, length, action)) for length in lengths]

    def app(self) -> web.Application:
        """Return its routes."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_post("/retrieve", self._retrieve)
        return app

    async def run_clock(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            at += 1 / self._script.tokens_per_s
            await asyncio.sleep(max(0.0, at - loop.time()))
            self._tick.set()
            self._tick = asyncio.Event()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        labels = f'{{engine="0",model_name="{MODEL}"}}'
        running, waiting = f"vllm:num_requests_running{labels}", f"vllm:num_requests_waiting{labels}"
        return web.Response(text=f"{running} {self._num_open:.1f}\n{waiting} 0.0\n")

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "max_model_len": 32768}]})

    async def _retrieve(self, request: web.Request) -> web.Response:
        queries = (await request.json())["queries"]
        await asyncio.sleep(self._script.search_s)
        return web.json_response({"result": [[{"document": _PASSAGE, "score": 1.0}] for _ in queries]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        frames = self._chat if "chat" in request.path else self._frames_for(await request.read())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        with self._counted():
            await response.prepare(request)
            for frame in frames[:-1]:
                await self._tick.wait()
                await response.write(frame)
            await response.write(frames[-1])
        return response

    def _frames_for(self, body: bytes) -> list[bytes]:
        if not self._script.num_searches:
            return random.choice(self._answers)
        prompt = self._script.tokenizer.decode(tuple(json.loads(body)["prompt"]))
        num_done = prompt.count(_END_OF_OBSERVATION) - _NUM_IN_INSTRUCTIONS
        return random.choice(self._searches if num_done < self._script.num_searches else self._answers)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1


async def serve(port: int, script: Script) -> None:
    """Serve until the process ends."""
    engine = PacedEngine(script)
    # As vLLM does, it notices a client that leaves while it waits for the next token.
    runner = web.AppRunner(engine.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await engine.run_clock()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each completion")
    parser.add_argument("--num-tokens", type=int, default=256, help="before a completion's answer or query")
    parser.add_argument("--searches", type=int, default=0, help="of each run, before its answer")
    parser.add_argument("--search-s", type=float, default=0.0, help="seconds of a search by /retrieve")
    parser.add_argument("--spread", type=float, default=0.0, help="share by which lengths differ from --num-tokens")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose tokenizer names the tokens")
    options = parser.parse_args()
    tokenizer = Tokenizer.load(str(options.checkpoint))
    pace = options.tokens_per_s, options.num_tokens
    uvloop.run(serve(options.port, Script(tokenizer, *pace, options.searches, options.search_s, options.spread)))


if __name__ == "__main__":
    main()
