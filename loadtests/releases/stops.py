"""Runs that are under way at one release when it stops or is killed, followed to their ends at the other."""

import asyncio
from collections import Counter

from loadtests.faults.engine import question_of
from loadtests.faults.reading import Reading, expected, read_on
from loadtests.releases.asking import Client, WrongError, texts_of
from loadtests.releases.stack import Release

_UNDER_WAY = 3
"""Events of each stream that are read before the end of its gateway."""
_BEGIN_WITHIN_S = 60.0
WHOLE = "whole"
TOLD = frozenset({"stopping", "run_lost"})
"""Codes of failures that tell a client why, and to ask again."""
_MESSAGES = {"The server is stopping": "stopping", "The server that ran this stopped": "run_lost"}
"""The same in responses, whose codes are OpenAI's: by the beginning of their message."""


async def ends_of_runs(
    leaving: Release, clients: tuple[Client, Client], *, is_kill: bool, num_runs: int
) -> dict[str, Counter[str]]:
    """End a gateway under runs; return how they ended, for streams and for responses in the background.

    ``clients`` are those of the gateway that ends and of the other one.
    """
    here, there = clients
    undisturbed = map(texts_of, await asyncio.gather(*map(there.response, range(num_runs))))
    readings = [Reading() for _ in range(num_runs)]
    async with asyncio.TaskGroup() as group:
        for number, reading in enumerate(readings):
            group.create_task(read_on(here.http, here.url, question_of(number), reading))
        async with asyncio.timeout(_BEGIN_WITHIN_S):
            while any(reading.last_seq < _UNDER_WAY for reading in readings):  # noqa: ASYNC110 (read elsewhere)
                await asyncio.sleep(0.01)
        made = await asyncio.gather(*map(here.in_background, range(num_runs)))
        statuses = [(await here.call("GET", f"/v1/responses/{one}"))["status"] for one in made]
        await asyncio.to_thread(leaving.program.kill if is_kill else leaving.program.stop)
    background = [_end(there, one, texts) for one, texts in zip(made, undisturbed, strict=True)]
    streams = [_end_of_stream(there, number, reading) for number, reading in enumerate(readings)]
    ends = {"in the background": Counter(await asyncio.gather(*background))}
    ends["streams"] = Counter(await asyncio.gather(*streams))
    if over := [status for status in statuses if status not in ("queued", "in_progress")]:
        ends["in the background"]["ended before the stop"] += len(over)
    return ends


async def _end(there: Client, response_id: str, undisturbed: list[str]) -> str:
    try:
        response = await there.ended(response_id)
    except WrongError as error:
        return str(error)
    if response["status"] == "completed":
        return WHOLE if texts_of(response) == undisturbed else f"other texts: {texts_of(response)}"
    told = str((response.get("error") or {}).get("message"))
    return next((code for beginning, code in _MESSAGES.items() if told.startswith(beginning)), told)


async def _end_of_stream(there: Client, number: int, reading: Reading) -> str:
    await there.read_to_end(number, reading)
    if reading.end != "completed":
        return reading.end or "no end"
    wrong = reading.differences(expected(number))
    return f"{wrong} characters wrong, {reading.num_gaps} gaps" if wrong or reading.num_gaps else WHOLE
