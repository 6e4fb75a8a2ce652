"""Questions as clients ask them that never come back: each is asked once, and read to its end, in one of five ways."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadtests.faults.engine import question_of
from loadtests.faults.reading import Reading, expected
from searchr1.loop.types import Status
from tests.engines.pool.questions import answer_of
from tests.engines.vllm.fake_vllm import MODEL

_CHAT, _RESPONSES = "/v1/chat/completions", "/v1/responses"


class FailedError(Exception):
    """A request was refused, or its answer is not whole or not right."""


@dataclass(frozen=True)
class Asker:
    """Whom requests go to, and how."""

    http: aiohttp.ClientSession
    url: str

    async def whole(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON of an answer. Raises ``FailedError``."""
        async with self.http.post(self.url + path, json=body) as response:
            await _check(response)
            return await response.json()

    async def events(self, path: str, body: dict[str, Any]) -> AsyncIterator[str]:
        """Yield the payloads of a stream. Raises ``FailedError``."""
        async with self.http.post(self.url + path, json={**body, "stream": True}) as response:
            await _check(response)
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield line[6:].decode().rstrip()


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise FailedError(f"{response.status} {(await response.text())[:200]}")


def _check_answer(text: str, number: int) -> None:
    if text.strip() != answer_of(number):
        raise FailedError(f"{text!r} instead of {answer_of(number)!r}")


async def native_stream(asker: Asker, number: int) -> None:
    """Read every event of a run; no character of it may be wrong, and none out of order."""
    reading = Reading()
    async for payload in asker.events("/v1/research", {"question": question_of(number), "temperature": 0}):
        reading.take(json.loads(payload))
    if reading.end != Status.COMPLETED or reading.num_gaps or reading.differences(expected(number)):
        raise FailedError(f"{reading.end}, {reading.num_gaps} events out of order: {reading.text_read!r}")


async def chat(asker: Asker, number: int) -> None:
    """Ask for one chat completion."""
    choice = (await asker.whole(_CHAT, _chat(number)))["choices"][0]
    _check_answer(choice["message"]["content"], number)


async def chat_stream(asker: Asker, number: int) -> None:
    """Read the chunks of a chat completion."""
    payloads = [payload async for payload in asker.events(_CHAT, _chat(number))]
    if not payloads or payloads.pop() != "[DONE]":
        raise FailedError("a stream without an end")
    deltas = [choice["delta"] for payload in payloads for choice in json.loads(payload)["choices"]]
    _check_answer("".join(delta.get("content") or "" for delta in deltas), number)


async def response(asker: Asker, number: int) -> None:
    """Ask for one response."""
    _check_response(await asker.whole(_RESPONSES, _responses(number)), number)


async def response_stream(asker: Asker, number: int) -> None:
    """Read the events of a response."""
    payloads = [payload async for payload in asker.events(_RESPONSES, _responses(number)) if payload != "[DONE]"]
    last = json.loads(payloads[-1]) if payloads else {}
    if last.get("type") != "response.completed":
        raise FailedError(f"a stream that ends with {last.get('type')}")
    _check_response(last["response"], number)


def _chat(number: int) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": question_of(number)}], "temperature": 0}


def _responses(number: int) -> dict[str, Any]:
    return {"model": MODEL, "input": question_of(number), "temperature": 0, "store": False}


def _check_response(found: Any, number: int) -> None:
    messages = [item for item in found["output"] if item["type"] == "message"]
    _check_answer("".join(part["text"] for message in messages for part in message["content"]), number)


Way = Callable[[Asker, int], Awaitable[None]]
WAYS: dict[str, Way] = {
    "native, stream": native_stream,
    "chat": chat,
    "chat, stream": chat_stream,
    "responses": response,
    "responses, stream": response_stream,
}
"""By the name that the table has."""
