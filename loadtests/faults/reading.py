"""One run as a careful client reads it: over whichever gateway answers, taken up where it broke off."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import aiohttp

from searchr1.loop.types import AnswerCompleted, LoopEvent, SearchRequested, ThinkDelta
from tests.engines.deterministic import encode
from tests.engines.pool.questions import completion_of, new_rollout

_COME_BACK_S = 30.0
"""For so long after the newest event a client tries to take its stream up."""
_PAUSE_S = 0.25
_TEXTS = {"think.delta", "answer.completed"}


@dataclass
class Reading:
    """What was read of a run."""

    text: list[str] = field(default_factory=list)
    run_id: str | None = None
    last_seq: int = -1
    end: str | None = None
    """Status of its end, or the code of its failure."""
    num_gaps: int = 0
    """Events that came out of order, twice, or never."""
    num_taken_up: int = 0

    def take(self, event: dict[str, Any]) -> None:
        """Take an event."""
        self.num_gaps += event["seq"] != self.last_seq + 1
        self.last_seq = event["seq"]
        if event["type"] in _TEXTS:
            self.text.append(event["text"])
        elif event["type"] == "search.started":
            self.text.append(event["query"])
        elif event["type"] == "run.completed":
            self.end = event["status"]
        elif event["type"] == "run.failed":
            self.end = event["error"]["code"]

    @property
    def text_read(self) -> str:
        """Reasoning, queries and answer, one behind the other."""
        return "".join(self.text)

    def differences(self, expected: str) -> int:
        """Return the number of characters that are missing, or there without need."""
        read = self.text_read
        if read == expected:
            return 0
        changes = SequenceMatcher(None, expected, read, autojunk=False).get_opcodes()
        return sum(max(b - a, d - c) for kind, a, b, c, d in changes if kind != "equal")


async def read_run(http: aiohttp.ClientSession, gateways: Sequence[str], question: str) -> Reading:
    """Ask one of the gateways, and read to the end; after a break, from any of them."""
    reading, moved_at = Reading(), time.monotonic()
    order = random.sample(list(gateways), len(gateways))
    while reading.end is None and time.monotonic() - moved_at < _COME_BACK_S:
        before = reading.last_seq
        for url in order:
            await read_on(http, url, question, reading)
            if reading.end is not None:
                return reading
        if reading.last_seq != before:
            moved_at = time.monotonic()
        await asyncio.sleep(_PAUSE_S)
    return reading


async def read_on(http: aiohttp.ClientSession, url: str, question: str, reading: Reading) -> None:
    """Ask, or take up what was asked. Returns at a break too."""
    try:
        if reading.run_id is None:
            asking = http.post(f"{url}/v1/research", json={"question": question, "stream": True, "temperature": 0})
        else:
            headers = {"Last-Event-ID": str(reading.last_seq)} if reading.last_seq >= 0 else {}
            asking = http.get(f"{url}/v1/research/{reading.run_id}/events", headers=headers)
        async with asking as response:
            if response.status != 200:
                return
            if reading.run_id is not None:
                reading.num_taken_up += 1
            reading.run_id = response.headers["x-run-id"] if reading.run_id is None else reading.run_id
            async for line in response.content:
                if line.startswith(b"data: "):
                    reading.take(json.loads(line[6:]))
    except (aiohttp.ClientError, OSError, TimeoutError):
        return


def expected(number: int) -> str:
    """Return the reasoning, query and answer of an undisturbed run, as a reader sees them."""
    rollout, events = new_rollout(number), list[LoopEvent]()
    events += rollout.receive_text(completion_of(number, 1), tuple(encode(completion_of(number, 1))))
    events += rollout.end_completion("stop")
    rollout.receive_passages(())
    events += rollout.receive_text(completion_of(number, 2), tuple(encode(completion_of(number, 2))))
    events += rollout.end_completion("stop")
    return "".join(_shown(event) for event in events)


def _shown(event: LoopEvent) -> str:
    match event:
        case ThinkDelta(text=text) | AnswerCompleted(text=text):
            return text
        case SearchRequested(query=query):
            return query
        case _:
            return ""
