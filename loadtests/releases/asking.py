"""Requests to either release, and what is told of those that do not end well."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadtests.faults.engine import question_of
from loadtests.faults.reading import Reading, read_on
from searchr1.loop.types import Status
from tests.engines.pool.questions import answer_of
from tests.engines.vllm.fake_vllm import MODEL

END_WITHIN_S = 90.0
_POLL_S = 0.2
FOLLOW_UP = "And who lives there?"
"""The engine answers this only where the prompt holds the question before."""


class WrongError(Exception):
    """What a release answered is not what was to be answered."""


@dataclass(frozen=True)
class Client:
    """A key at one of the gateways."""

    http: aiohttp.ClientSession
    url: str

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the JSON of an answer. Raises ``WrongError`` with status and code where it is not a 200."""
        async with self.http.request(method, self.url + path, json=body) as response:
            if response.status != 200:
                raise WrongError(f"{response.status} {(await response.text())[:160]}")
            return await response.json()

    async def run(self, number: int, **more: Any) -> Any:
        """Return a native run, checked."""
        body = {"question": question_of(number), "temperature": 0, **more}
        run = await self.call("POST", "/v1/research", body)
        check(run["answer"] == answer_of(number), f"the answer {run['answer']!r}")
        return run

    async def response(self, number: int, **more: Any) -> Any:
        """Return a response, checked."""
        body = {"model": MODEL, "input": question_of(number), "temperature": 0, **more}
        response = await self.call("POST", "/v1/responses", body)
        check(answer_in(response) == answer_of(number), f"the answer {answer_in(response)!r}")
        return response

    async def in_background(self, number: int) -> str:
        """Begin a response in the background; return its id."""
        body = {"model": MODEL, "input": question_of(number), "temperature": 0, "background": True}
        return str((await self.call("POST", "/v1/responses", body))["id"])

    async def ended(self, response_id: str) -> Any:
        """Return a response once it has ended. Raises ``WrongError``, in time also where it does not end."""
        give_up_at = time.monotonic() + END_WITHIN_S
        while time.monotonic() < give_up_at:
            response = await self.call("GET", f"/v1/responses/{response_id}")
            if response["status"] not in ("queued", "in_progress"):
                return response
            await asyncio.sleep(_POLL_S)
        raise WrongError("no end")

    async def read_to_end(self, number: int, reading: Reading) -> None:
        """Read on, from the event behind the last one, until the run's end, or until it is late for that."""
        give_up_at = time.monotonic() + END_WITHIN_S
        while reading.end is None and time.monotonic() < give_up_at:
            await read_on(self.http, self.url, question_of(number), reading)
            await asyncio.sleep(_POLL_S)


def check(is_right: bool, found: str) -> None:
    """Raise ``WrongError`` where something is not right."""
    if not is_right:
        raise WrongError(found)


def answer_in(response: Any) -> str:
    """Return the text of a response's messages."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"]).strip()


def texts_of(response: Any) -> list[str]:
    """Return all that a response shows of its run: reasoning and answer, item by item."""
    items = [[*(item.get("summary") or []), *(item.get("content") or [])] for item in response["output"]]
    return [str(part.get("text", "")) for parts in items for part in parts]


def is_whole(reading: Reading, expected: str) -> bool:
    """Return whether a run was read to a good end: each event once, and no character wrong."""
    return reading.end == Status.COMPLETED and not reading.num_gaps and not reading.differences(expected)
