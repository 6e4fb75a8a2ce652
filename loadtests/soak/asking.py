"""Requests as clients send them. Each returns its outcome in a few words: a status, and the error's code or the end."""

import asyncio
import json
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from loadtests.soak.stack import KEYS, RESUME_GRACE_S
from tests.engines.vllm.fake_vllm import MODEL

MALFORMED = frozenset(
    {
        "400 invalid_json",
        "400 invalid_value",
        "400 above_maximum",
        "400 missing",
        "400 extra_forbidden",
        "400 model_attributes_type",
        "400 string_type",
        "400 too_many_values",
        "415 unsupported_media_type",
    }
)
_NO_RUN = "run_0123456789abcdef0123456789abcdef"


class BrokenError(Exception):
    """An answer is not what the protocol promises."""


@dataclass(frozen=True)
class KeptRun:
    """A stored run, and whose it is."""

    id: str
    key: str


@dataclass(frozen=True)
class Asker:
    """What requests share."""

    url: str
    http: aiohttp.ClientSession
    chance: random.Random
    runs: deque[KeptRun]

    @property
    def question(self) -> str:
        """A question that is seldom the same."""
        return f"What is told of place number {self.chance.randrange(10_000)}?"

    @property
    def key(self) -> str:
        """One of the keys."""
        return self.chance.choice(KEYS)

    @property
    def run(self) -> KeptRun:
        """A stored run, or one that never was."""
        return self.chance.choice(self.runs) if self.runs else KeptRun(_NO_RUN, KEYS[0])

    async def ask(
        self, method: str, path: str, body: object = None, *, key: str | None = KEYS[0], **headers: str
    ) -> tuple[str, Any]:
        """Return an answer's status, with its error's code if it is one, and its JSON."""
        sent: Any = headers if key is None else {"Authorization": f"Bearer {key}", **headers}
        async with self.http.request(method, self.url + path, json=body, headers=sent) as response:
            return await _read(response)

    def stream(self, path: str, body: object, key: str) -> Any:
        """Return the context of a streamed answer."""
        return self.http.post(self.url + path, json=body, headers={"Authorization": f"Bearer {key}"})


async def _read(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    text = await response.text()
    is_json = response.content_type == "application/json"
    told = json.loads(text) if is_json and text else text
    if response.status >= 400 and isinstance(told, dict) and "error" in told:
        return f"{response.status} {told['error']['code']}", told
    return str(response.status), told


async def _payloads(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield line[6:].decode().rstrip()


async def research(asker: Asker) -> str:
    """Ask for one object."""
    key = asker.key
    status, run = await asker.ask("POST", "/v1/research", {"question": asker.question}, key=key)
    if status != "200":
        return status
    asker.runs.append(KeptRun(run["id"], key))
    return f"200 {run['status']}"


async def research_stream(asker: Asker) -> str:
    """Read a stream to its end."""
    key = asker.key
    async with asker.stream("/v1/research", {"question": asker.question, "stream": True}, key) as response:
        if response.status != 200:
            return (await _read(response))[0]
        outcome, _ = await _follow(response, -1)
        asker.runs.append(KeptRun(response.headers["x-run-id"], key))
    return outcome or "stream without an end"


async def resumed(asker: Asker) -> str:
    """Leave a stream after a few events, come back a little later, and read the rest."""
    key, stop_at = asker.key, asker.chance.randint(0, 10)
    async with asker.stream("/v1/research", {"question": asker.question, "stream": True}, key) as response:
        if response.status != 200:
            return (await _read(response))[0]
        run = KeptRun(response.headers["x-run-id"], key)
        outcome, last = await _follow(response, -1, stop_at)
        response.close()
    left_at = time.monotonic()
    if outcome is not None:
        return outcome
    await asyncio.sleep(asker.chance.random() * 2)
    url = f"{asker.url}/v1/research/{run.id}/events"
    headers = {"Authorization": f"Bearer {key}", "Last-Event-ID": str(last)}
    async with asker.http.get(url, headers=headers) as response:
        if response.status != 200:
            return (await _read(response))[0]
        away_s = time.monotonic() - left_at
        outcome, _ = await _follow(response, last)
    asker.runs.append(run)  # Only now: others delete what is listed there.
    if outcome == "stream cancelled" and away_s >= RESUME_GRACE_S:
        return "came back too late"  # Where the machine is too busy.
    return outcome or "stream without an end"


async def _follow(response: aiohttp.ClientResponse, last: int, stop_at: int | None = None) -> tuple[str | None, int]:
    """Return the outcome, None where the stream did not come to its end, and the last event's number."""
    async for payload in _payloads(response):
        event = json.loads(payload)
        if event["seq"] != last + 1:
            raise BrokenError(f"event {event['seq']} after {last}")
        last = event["seq"]
        if event["type"] == "run.completed":
            return f"stream {event['status']}", last
        if event["type"] == "run.failed":
            return f"failed {event['error']['code']}", last
        if last == stop_at:
            return None, last
    return None, last


async def follow_up(asker: Asker) -> str:
    """Ask after a stored run."""
    run = asker.run
    body = {"question": "And what else?", "previous_run_id": run.id}
    status, told = await asker.ask("POST", "/v1/research", body, key=run.key)
    return f"200 {told['status']}" if status == "200" else status


async def replay(asker: Asker) -> str:
    """Run a stored run again; searches that its record lacks fail, as this engine says another thing each time."""
    run = asker.run
    status, told = await asker.ask("POST", "/v1/research/replay", {"run_id": run.id}, key=run.key)
    return f"200 {told['status']}" if status == "200" else status


async def twice(asker: Asker) -> str:
    """Send the same request twice at once: it is one run."""
    body, key = {"question": asker.question}, asker.key
    given = {"Idempotency-Key": secrets.token_hex(16)}
    both = await asyncio.gather(*(asker.ask("POST", "/v1/research", body, key=key, **given) for _ in range(2)))
    for status, _ in both:
        if status != "200":
            return status
    if both[0][1]["id"] != both[1][1]["id"]:
        raise BrokenError("two runs of one key")
    return "one run"


def _chat(asker: Asker, **more: object) -> dict[str, object]:
    talk = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": asker.question},
        {"role": "assistant", "content": "Much is told of it."},
        {"role": "user", "content": asker.question},
    ]
    return {"model": MODEL, "messages": talk if asker.chance.random() < 0.5 else talk[-1:], **more}


async def chat(asker: Asker) -> str:
    """Ask as OpenAI's clients do, now and then for two choices."""
    body = _chat(asker, n=asker.chance.choice([1, 1, 1, 2]))
    status, told = await asker.ask("POST", "/v1/chat/completions", body, key=asker.key)
    return f"200 {told['choices'][0]['finish_reason']}" if status == "200" else status


async def chat_stream(asker: Asker) -> str:
    """Read a chat's stream to its end."""
    finish = None
    async with asker.stream("/v1/chat/completions", _chat(asker, stream=True), asker.key) as response:
        if response.status != 200:
            return (await _read(response))[0]
        async for payload in _payloads(response):
            if payload == "[DONE]":
                return f"stream {finish}"
            chunk = json.loads(payload)
            if "error" in chunk:
                return f"failed {chunk['error']['code']}"
            finish = chunk["choices"][0]["finish_reason"] or finish
    return "stream without an end"


async def responses(asker: Asker) -> str:
    """Ask by the Responses API."""
    body = {"model": MODEL, "input": asker.question}
    status, told = await asker.ask("POST", "/v1/responses", body, key=asker.key)
    return f"200 {told['status']}" if status == "200" else status


async def responses_stream(asker: Asker) -> str:
    """Read a response's stream to its end."""
    body = {"model": MODEL, "input": asker.question, "stream": True, "tools": [{"type": "web_search"}]}
    async with asker.stream("/v1/responses", body, asker.key) as response:
        if response.status != 200:
            return (await _read(response))[0]
        async for payload in _payloads(response):
            event = json.loads(payload)
            if event["type"] == "error":
                return f"failed {event['code']}"
            if event["type"] == "response.failed":
                return f"failed {event['response']['error']['code']}"
            if event["type"] in ("response.completed", "response.incomplete"):
                return f"stream {event['response']['status']}"
    return "stream without an end"


async def cancelled(asker: Asker) -> str:
    """Start a response in the background, look at it, and cancel it."""
    key, body = asker.key, {"model": MODEL, "input": asker.question, "background": True}
    status, told = await asker.ask("POST", "/v1/responses", body, key=key)
    if status != "200":
        return status
    await asyncio.sleep(asker.chance.random() * 0.5)
    path = f"/v1/responses/{told['id']}"
    status, _ = await asker.ask("GET", path, key=key)
    if status != "200":
        return status
    status, told = await asker.ask("POST", f"{path}/cancel", key=key)
    return f"200 {told['status']}" if status == "200" else status


async def mcp(asker: Asker) -> str:
    """Call a tool over the Model Context Protocol, without a handshake."""
    name = asker.chance.choice(["research", "search"])
    arguments = {"question": asker.question} if name == "research" else {"query": asker.question}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {asker.key}"}
    async with asker.http.post(f"{asker.url}/mcp", json=call, headers=headers) as response:
        if response.status != 200:
            return (await _read(response))[0]
        async for payload in _payloads(response):
            message = json.loads(payload)
            if "error" in message:
                return f"200 error {message['error']['code']}"
            if "result" in message:
                return "200 tool error" if message["result"].get("isError") else "200 tool"
    return "stream without an end"


async def list_runs(asker: Asker) -> str:
    """List a key's runs."""
    status, _ = await asker.ask("GET", f"/v1/research?limit={asker.chance.randint(1, 50)}", key=asker.key)
    return status


async def get_run(asker: Asker) -> str:
    """Get a stored run, with its trajectory."""
    run = asker.run
    status, _ = await asker.ask("GET", f"/v1/research/{run.id}", key=run.key)
    return status


async def delete_run(asker: Asker) -> str:
    """Delete a stored run."""
    run = asker.run
    status, _ = await asker.ask("DELETE", f"/v1/research/{run.id}", key=run.key)
    return status


async def foreign_run(asker: Asker) -> str:
    """Get another key's run, which must not be found."""
    run = asker.run
    status, _ = await asker.ask("GET", f"/v1/research/{run.id}", key=next(key for key in KEYS if key != run.key))
    return status


async def wrong_key(asker: Asker) -> str:
    """Send a key that is none, or none at all, with a body that is never read."""
    key = asker.chance.choice([None, "wrong-key", KEYS[0][:-1]])
    status, _ = await asker.ask("POST", "/v1/research", {"question": "x" * 100_000}, key=key)
    return status


async def malformed(asker: Asker) -> str:
    """Send what is not JSON, or not a request."""
    json_type = "application/json"
    body, content_type = asker.chance.choice(
        [
            (b"{", json_type),
            (b"\xff\xfe", json_type),
            (b"[" * 50_000, json_type),
            (b"[]", json_type),
            (b'{"question": 5}', json_type),
            (b"{}", json_type),
            (b'{"question": "?", "max_turns": 1000}', json_type),
            (b'{"question": "?", "no_such_field": 1}', json_type),
            (json.dumps({"question": "?", "x": list(map(str, range(20_000)))}).encode(), json_type),
            (b"question=x", "application/x-www-form-urlencoded"),
        ]
    )
    headers = {"Authorization": f"Bearer {asker.key}", "Content-Type": content_type}
    async with asker.http.post(f"{asker.url}/v1/research", data=body, headers=headers) as response:
        return (await _read(response))[0]


async def probe(asker: Asker) -> str:
    """Ask what operators, browsers and balancers ask."""
    method, path = asker.chance.choice(
        [
            ("GET", "/healthz"),
            ("HEAD", "/healthz"),
            ("GET", "/metrics"),
            ("GET", "/version"),
            ("GET", "/v1/models"),
            ("GET", "/"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
            ("GET", "/readyz"),
        ]
    )
    status, _ = await asker.ask(method, path)
    return f"{status} not ready" if (path, status) == ("/readyz", "503") else status


async def elsewhere(asker: Asker) -> str:
    """Ask for what is not there."""
    method, path = asker.chance.choice([("GET", "/nowhere"), ("PUT", "/v1/research"), ("GET", "/v1/responses/../x")])
    status, _ = await asker.ask(method, path)
    return status
