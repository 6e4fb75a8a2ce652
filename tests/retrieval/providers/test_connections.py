"""The providers' connections: none is lost by searches that are cut off, wherever that meets them."""

import asyncio
from contextlib import aclosing

import pytest
from aiohttp import web

from searchr1.retrieval.base import Found
from searchr1.retrieval.providers import rest
from searchr1.retrieval.providers.retrieve import RetrieveClient
from tests.retrieval.providers.conftest import Serve

_STEPS = 60
"""Turns of the loop, more than a search takes; a search is cut off after each number of them."""


async def answer(_: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"result": [[{"document": {"contents": "T\na"}, "score": 1}]]})


@pytest.fixture(autouse=True)
def few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that the first that is lost is missed."""
    monkeypatch.setattr(rest, "MAX_CONNECTIONS", 1)


@pytest.mark.parametrize("at_once", [1, 3])
async def test_no_search_that_is_cut_off_keeps_its_connection(serve: Serve, at_once: int) -> None:
    async with serve(answer) as url, aclosing(RetrieveClient(url + "/retrieve")) as client:
        for steps in range(_STEPS):
            searches = [asyncio.create_task(client.search("q", 1, 30.0)) for _ in range(at_once)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for search in searches:
                search.cancel()
            await asyncio.gather(*searches, return_exceptions=True)
            # One after the other, as if the last one's answer had just come when its client left.
            assert isinstance(await client.search("q", 1, 10.0), Found), f"after {steps} steps"
