"""A paced engine: vLLM's wire at a fixed rate, all completions in step, as a busy GPU sends them.

    python -m loadtests.streaming.paced_engine --port 8123 --tokens-per-s 50

It costs little itself and never tires, so what stands before it shows. Every completion is the same: reasoning of
``--num-tokens`` tokens, then an answer.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer

MODEL = "paced"
_THOUGHT = "I should think about what is asked here, and about what I know of it. "
_ANSWER = " </think> <answer> Bamako </answer>"
_CREATED = 1_760_000_000


def tokens_of(tokenizer: Tokenizer, num_tokens: int) -> list[tuple[int, str]]:
    """Return a completion's tokens, each with the text that it adds."""
    thought = tokenizer.encode("<think>" + _THOUGHT * num_tokens)[:num_tokens]
    ids = [*thought, *tokenizer.encode(_ANSWER)]
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


class PacedEngine:
    """The server. One clock ticks for all streams: each gets its next token at each tick."""

    def __init__(self, tokens: Sequence[tuple[int, str]], tokens_per_s: float) -> None:
        self._period_s = 1 / tokens_per_s
        self._completion, self._chat = completion_frames(tokens), chat_frames(tokens)
        self._tick = asyncio.Event()

    def app(self) -> web.Application:
        """Return its routes."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        return app

    async def run_clock(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            at += self._period_s
            await asyncio.sleep(max(0.0, at - loop.time()))
            self._tick.set()
            self._tick = asyncio.Event()

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": MODEL, "max_model_len": 32768}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        *frames, last = self._chat if "chat" in request.path else self._completion
        for frame in frames:
            await self._tick.wait()
            await response.write(frame)
        await response.write(last)
        return response


async def serve(port: int, tokens_per_s: float, num_tokens: int, checkpoint: Path) -> None:
    """Serve until the process ends."""
    engine = PacedEngine(tokens_of(Tokenizer.load(str(checkpoint)), num_tokens), tokens_per_s)
    runner = web.AppRunner(engine.app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await engine.run_clock()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each completion")
    parser.add_argument("--num-tokens", type=int, default=256, help="before the answer")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose tokenizer names the tokens")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.tokens_per_s, options.num_tokens, options.checkpoint))


if __name__ == "__main__":
    main()
