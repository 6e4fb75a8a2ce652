"""Two gateways with one Redis: a response of one is followed, taken up, cancelled and followed up on the other."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.conftest import MODEL, Stage, sse_payloads

pytestmark = pytest.mark.redis
BODY = {"model": MODEL, "input": "Which currency is used in Mali?"}


async def stored(stage: Stage, response_id: str, status: str) -> dict[str, Any]:
    """The response once ``stage`` finds it so: it reaches the store a moment after its client."""
    while True:
        response = await stage.client.get(f"/v1/responses/{response_id}")
        if response.status_code == 200 and response.json()["status"] == status:
            found: dict[str, Any] = response.json()
            return found
        await asyncio.sleep(0.05)


async def test_a_stream_is_taken_up_on_the_other_replica(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    streamed = await one.client.post("/v1/responses", json={**BODY, "stream": True})
    told = [json.loads(data) for data in sse_payloads(streamed.text)]
    response_id = told[0]["response"]["id"]
    assert await stored(other, response_id, "completed") == told[-1]["response"]
    params = {"stream": "true", "starting_after": "7"}
    resumed = await other.client.get(f"/v1/responses/{response_id}", params=params)
    assert [json.loads(data) for data in sse_payloads(resumed.text)] == told[8:]
    follow_up = await other.client.post("/v1/responses", json={**BODY, "previous_response_id": response_id})
    assert follow_up.json()["status"] == "completed"


async def test_a_response_in_the_background_is_cancelled_on_the_other_replica(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    one.engine.hold = asyncio.Event()
    made = (await one.client.post("/v1/responses", json={**BODY, "background": True})).json()
    await stored(other, made["id"], "in_progress")
    following = asyncio.create_task(
        other.client.get(f"/v1/responses/{made['id']}", params={"stream": "true", "starting_after": 0})
    )
    cancelled = await other.client.post(f"/v1/responses/{made['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    assert one.engine.num_open == 0
    last = json.loads(sse_payloads((await following).text)[-1])
    assert last["response"]["status"] == "cancelled"
