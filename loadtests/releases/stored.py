"""Stored runs of one release at the other: read, followed from an event on, listed, followed up, deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loadtests.faults.reading import Reading, expected
from loadtests.releases.asking import FOLLOW_UP, Client, WrongError, answer_in, check, is_whole, texts_of
from tests.engines.pool.questions import answer_of
from tests.engines.vllm.fake_vllm import MODEL

_NUMBER = 7
_AFTER = 3
"""Streams are taken up behind this event."""
_SETTLED_S = 1.0
Step = Callable[[], Awaitable[None]]


async def seen_of_stored(maker: Client, other: Client) -> dict[str, str]:
    """Return what became of each use that ``other`` makes of what ``maker`` has stored; ``yes`` where it works."""
    run = await maker.run(_NUMBER)
    response = await maker.response(_NUMBER)
    steps: dict[str, Step] = {
        "run: read": lambda: _read(maker, other, f"/v1/research/{run['id']}"),
        "run: streamed from an event on": lambda: _streamed(other, run["id"]),
        "run: listed": lambda: _listed(other, run["id"]),
        "run: followed up": lambda: _followed_up(maker, other, run["id"]),
        "run: replayed": lambda: _replayed(other, run["id"]),
        "run: deleted": lambda: _deleted(maker, other, f"/v1/research/{run['id']}"),
        "response: read": lambda: _read(maker, other, f"/v1/responses/{response['id']}"),
        "response: streamed from an event on": lambda: _response_streamed(maker, other, response["id"]),
        "response: its input": lambda: _read(maker, other, f"/v1/responses/{response['id']}/input_items"),
        "response: followed up": lambda: _response_followed_up(maker, other, response["id"]),
        "response: deleted": lambda: _deleted(maker, other, f"/v1/responses/{response['id']}"),
    }
    return {name: await _told(step) for name, step in steps.items()}


async def _told(step: Step) -> str:
    """Take a step, and once more where it fails: older releases answer before a run's end is stored."""
    for seen in ("yes", "yes, asked again"):
        try:
            await step()
        except WrongError as error:
            told = str(error)
            await asyncio.sleep(_SETTLED_S)
        else:
            return seen
    return told


async def _read(maker: Client, other: Client, path: str) -> None:
    mine, theirs = await maker.call("GET", path), await other.call("GET", path)
    differing = [name for name in mine if mine[name] != theirs.get(name)]
    check(not differing, f"other {', '.join(differing)}")


async def _streamed(other: Client, run_id: str) -> None:
    whole = Reading(run_id=run_id)
    await other.read_to_end(_NUMBER, whole)
    check(is_whole(whole, expected(_NUMBER)), f"{whole.end}, {whole.text_read!r}")
    rest = Reading(run_id=run_id, last_seq=_AFTER)
    await other.read_to_end(_NUMBER, rest)
    is_rest = rest.last_seq == whole.last_seq and not rest.num_gaps and whole.text_read.endswith(rest.text_read)
    check(is_rest, f"{rest.end}, {rest.text_read!r}")


async def _listed(other: Client, run_id: str) -> None:
    listed = await other.call("GET", "/v1/research?limit=100")
    check(any(one["id"] == run_id for one in listed["data"]), "not in the list")


async def _followed_up(maker: Client, other: Client, run_id: str) -> None:
    """Follow up at the other, then at the maker again: a conversation that goes to and fro."""
    for client in (other, maker):
        body = {"question": FOLLOW_UP, "temperature": 0, "previous_run_id": run_id}
        run = await client.call("POST", "/v1/research", body)
        check(run["answer"] == answer_of(_NUMBER), f"the answer {run['answer']!r}")
        run_id = run["id"]


async def _replayed(other: Client, run_id: str) -> None:
    run = await other.call("POST", "/v1/research/replay", {"run_id": run_id})
    check(run["answer"] == answer_of(_NUMBER), f"the answer {run['answer']!r}")


async def _response_streamed(maker: Client, other: Client, response_id: str) -> None:
    path = f"/v1/responses/{response_id}?stream=true&starting_after={_AFTER}"
    mine, theirs = [await _lines(client, path) for client in (maker, other)]
    check(len(theirs) > 1 and mine == theirs, f"{len(theirs)} lines instead of {len(mine)}, or others")


async def _lines(client: Client, path: str) -> list[bytes]:
    async with client.http.get(client.url + path) as response:
        check(response.status == 200, str(response.status))
        return [line async for line in response.content if line.startswith(b"data: ")]


async def _response_followed_up(maker: Client, other: Client, response_id: str) -> None:
    for client in (other, maker):
        body: dict[str, Any] = {"model": MODEL, "input": FOLLOW_UP, "temperature": 0}
        response = await client.call("POST", "/v1/responses", {**body, "previous_response_id": response_id})
        check(answer_in(response) == answer_of(_NUMBER), f"the answer {texts_of(response)!r}")
        response_id = response["id"]


async def _deleted(maker: Client, other: Client, path: str) -> None:
    await other.call("DELETE", path)
    for client in (maker, other):
        async with client.http.get(client.url + path) as response:
            check(response.status == 404, f"still there: {response.status}")
