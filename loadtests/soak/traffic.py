"""The mixed traffic: every kind of request, how often it comes, and which outcomes are right for it."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

from loadtests.soak import asking, rough
from loadtests.soak.asking import Asker
from loadtests.soak.tally import Tally

_ENDED = ("completed", "exhausted", "truncated")
_WHOLE = frozenset(f"200 {status}" for status in _ENDED)
_STREAMED = frozenset(f"stream {status}" for status in _ENDED)
_STORED = {"404 run_not_found"}
"""Runs are deleted, and forgotten after five minutes."""
_REQUEST_S = 60.0
_MAX_AT_ONCE = 150


@dataclass(frozen=True)
class Kind:
    """A kind of request."""

    weight: float
    right: frozenset[str]
    send: Callable[[Asker], Awaitable[str]]


def _bytes(send: Callable[[str, random.Random], Awaitable[str]]) -> Callable[[Asker], Awaitable[str]]:
    async def do(asker: Asker) -> str:
        return await send(asker.url, asker.chance)

    return do


KINDS: dict[str, Kind] = {
    "research": Kind(3, _WHOLE, asking.research),
    "research, stream": Kind(4, _STREAMED, asking.research_stream),
    "research, resumed": Kind(3, _STREAMED | {"came back too late"}, asking.resumed),
    "research, after another": Kind(0.5, _WHOLE | _STORED, asking.follow_up),
    "replay": Kind(0.5, _WHOLE | _STORED | {"400 invalid_value"}, asking.replay),
    "same key twice": Kind(0.5, frozenset({"one run"}), asking.twice),
    "chat": Kind(3, frozenset({"200 stop", "200 length"}), asking.chat),
    "chat, stream": Kind(2, frozenset({"stream stop", "stream length"}), asking.chat_stream),
    "responses": Kind(1, frozenset({"200 completed", "200 incomplete"}), asking.responses),
    "responses, stream": Kind(1, frozenset({"stream completed", "stream incomplete"}), asking.responses_stream),
    "background, cancelled": Kind(
        0.7, frozenset({"200 cancelled", "200 completed", "200 incomplete"}), asking.cancelled
    ),
    "mcp": Kind(0.7, frozenset({"200 tool"}), asking.mcp),
    "list": Kind(1, frozenset({"200"}), asking.list_runs),
    "get": Kind(1, frozenset({"200"} | _STORED), asking.get_run),
    "delete": Kind(1.5, frozenset({"200"} | _STORED), asking.delete_run),
    "another key's run": Kind(0.5, frozenset(_STORED), asking.foreign_run),
    "wrong key": Kind(2, frozenset({"401 invalid_api_key", "401 missing_api_key"}), asking.wrong_key),
    "malformed": Kind(2, asking.MALFORMED, asking.malformed),
    "probe": Kind(1, frozenset({"200"}), asking.probe),
    "elsewhere": Kind(0.5, frozenset({"404 not_found", "405 method_not_allowed"}), asking.elsewhere),
    "leaves a stream": Kind(2, frozenset({"left"}), _bytes(rough.leave_stream)),
    "leaves while waiting": Kind(2, frozenset({"left"}), _bytes(rough.leave_waiting)),
    "body a byte at a time": Kind(0.4, frozenset({"408 request_timeout"}), _bytes(rough.slow_body)),
    "body in parts": Kind(0.5, frozenset({"200"}), _bytes(rough.unhurried_body)),
    "half a head": Kind(0.4, frozenset({"408 request_timeout"}), _bytes(rough.slow_head)),
    "head of 40 kB": Kind(0.4, frozenset({"431 headers_too_large"}), _bytes(rough.large_head)),
    "body of 1.2 MB": Kind(0.4, frozenset({"413 request_too_large"}), _bytes(rough.large_body)),
    "silent connection": Kind(0.5, frozenset({"left"}), _bytes(rough.idle)),
}


@dataclass
class Traffic:
    """Sends requests at a steady rate. Each burst has connections of its own, which its end closes."""

    url: str
    tally: Tally
    rate_per_s: float
    chance: random.Random = field(default_factory=lambda: random.Random(15))
    runs: deque[asking.KeptRun] = field(default_factory=lambda: deque(maxlen=300))

    async def burst(self, seconds: float) -> None:
        """Send for so long, and wait for every answer."""
        names, weights = list(KINDS), [kind.weight for kind in KINDS.values()]
        ends, sent = time.monotonic() + seconds, set[asyncio.Task[None]]()
        timeout = aiohttp.ClientTimeout(total=_REQUEST_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
            asker = Asker(self.url, http, self.chance, self.runs)
            while time.monotonic() < ends:
                if len(sent) < _MAX_AT_ONCE:
                    [name] = self.chance.choices(names, weights)
                    task = asyncio.create_task(self._send(name, asker))
                    sent.add(task)
                    task.add_done_callback(sent.discard)
                await asyncio.sleep(self.chance.expovariate(self.rate_per_s))
            await asyncio.gather(*sent)

    async def _send(self, name: str, asker: Asker) -> None:
        kind, began = KINDS[name], time.monotonic()
        try:
            outcome = await kind.send(asker)
        except (aiohttp.ClientError, OSError, TimeoutError, asking.BrokenError) as error:
            outcome = f"lost: {error!r}"[:200]
        self.tally.note(name, outcome, kind.right, began, time.monotonic())
