"""How a run is asked for: by an agent that talks to an engine or a router itself, or of the gateway in one request."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.agents.engine import NAME
from loadtests.agents.trace import AgentRun
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Passage

Ask = Callable[[AgentRun], Awaitable[None]]
_DELTAS = (b'"type":"think.delta"', b'"type":"answer.delta"')


class OddRunError(Exception):
    """A run that did not do as its trace does. ``seen`` is all that it told: its events, or its messages."""

    def __init__(self, told: str, seen: Sequence[Any] = ()) -> None:
        super().__init__(told)
        self.seen = seen


class WrongRunError(OddRunError):
    """A run that ended, but not as its trace does: it did other work than in the other arms."""


class LostRunError(OddRunError):
    """A run that was refused, or that failed."""


def keeping(ask: Ask, file: Callable[[str], Path]) -> Ask:
    """Return ``ask``, by which every odd run leaves all that it told, beside its trace, in the ``file`` of its name."""

    async def asked(run: AgentRun) -> None:
        try:
            await ask(run)
        except OddRunError as error:
            kept = {"told": str(error), "run": asdict(run), "seen": error.seen}
            file(run.run).write_text(json.dumps(kept, indent=1), encoding="utf-8")
            raise

    return asked


def client() -> aiohttp.ClientSession:
    """Return a client that bounds nothing but idle connections, which vLLM closes after five seconds."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


@dataclass(frozen=True, slots=True)
class ChatAgent:
    """A loop over chat completions, as agents are mostly written: the whole text is sent again in each turn.

    With ``releases`` each request carries the run's ``program_id``, and its end is told, as ThunderAgent wants it.
    """

    http: aiohttp.ClientSession
    url: str
    retriever_url: str
    releases: bool = False

    async def ask(self, run: AgentRun) -> None:
        """Take a run to its end. Raises ``WrongRunError`` and ``LostRunError``."""
        program = {"program_id": run.run} if self.releases else {}
        messages = [{"role": "user", "content": SEARCH_R1.prompt(run.question)}]
        try:
            for number, expected in enumerate(run.texts):
                text = await self._complete(messages, program)
                if text.strip() != expected:
                    told = f"turn {number + 1} ended in {text[-80:]!r}, not in {expected[-80:]!r}"
                    raise WrongRunError(told, [*messages, {"role": "assistant", "content": text}])
                if number < len(run.searches):
                    found = SEARCH_R1.observation(await self._search(SEARCH_R1.action(text)[1]))
                    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": found.strip()}]
        finally:
            if program:
                await _post(self.http, f"{self.url}/programs/release", program)

    async def _complete(self, messages: list[dict[str, str]], program: dict[str, str]) -> str:
        body = {
            "model": NAME,
            "messages": messages,
            "temperature": 0,
            "max_tokens": 500,
            "stop": ["</search>", "</answer>"],
            "include_stop_str_in_output": True,
            **program,
        }
        answered = await _post(self.http, f"{self.url}/v1/chat/completions", body)
        return str(answered["choices"][0]["message"]["content"])

    async def _search(self, query: str) -> list[Passage]:
        body = {"queries": [query], "topk": 3, "return_scores": True}
        answered = await _post(self.http, self.retriever_url, body)
        return [Passage.from_contents(one["document"]["contents"]) for one in answered["result"][0]]


@dataclass(frozen=True, slots=True)
class GatewayUser:
    """A user of the gateway: one streamed request a run."""

    http: aiohttp.ClientSession
    url: str

    async def ask(self, run: AgentRun) -> None:
        """Take a run to its end. Raises ``WrongRunError`` and ``LostRunError``."""
        body = {"question": run.question, "stream": True}
        async with self.http.post(f"{self.url}/v1/research", json=body) as response:
            if response.status != 200:
                raise LostRunError(f"{response.status}: {(await response.text())[:200]}")
            lines = [line async for line in response.content if line.startswith(b"data: {")]
        events = [json.loads(line[6:]) for line in lines if not any(delta in line for delta in _DELTAS)]
        try:
            check(run, events)
        except OddRunError as error:
            error.seen = [json.loads(line[6:]) for line in lines]
            raise


def check(run: AgentRun, events: Sequence[dict[str, Any]]) -> None:
    """Hold a run's events against its trace. Raises ``WrongRunError`` and ``LostRunError``."""
    last = events[-1] if events else {}
    if last.get("type") != "run.completed":
        raise LostRunError(f"ended with {json.dumps(last)[:200]}")
    answers = [event["text"].strip() for event in events if event["type"] == "answer.completed"]
    if answers != [run.answer]:
        raise WrongRunError(f"{last['status']}, answered {answers}, not {run.answer!r}")
    queries = [event["query"] for event in events if event["type"] == "search.started"]
    num_found = sum(event["type"] == "search.completed" and len(event["passages"]) > 0 for event in events)
    if queries != [search.query for search in run.searches] or num_found != len(run.searches):
        raise WrongRunError(f"found passages for {num_found} of {queries}")


async def _post(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Post JSON for JSON. Raises ``LostRunError`` for any status but 200."""
    async with http.post(url, json=body) as response:
        if response.status != 200:
            raise LostRunError(f"{response.status}: {(await response.text())[:200]}")
        answered: dict[str, Any] = await response.json()
        return answered
