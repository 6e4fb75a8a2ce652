"""Every client once against the demo: the real model on real vLLM, the real index."""

from typing import Any

import httpx
import pytest

from tests.support.demo_server import Demo

from .clients import CLIENTS, Client, Job, ask
from .table import documented

pytestmark = pytest.mark.vllm

MODEL = "searchr1-atlas"
QUESTION = "Which currency is used in the country where Timbuktu is?"


@pytest.fixture(scope="module")
def native(demo: Demo) -> dict[str, Any]:
    """The run as the native API has it; greedy runs repeat."""
    response = httpx.post(f"{demo.url}/v1/research", json={"question": QUESTION}, timeout=120)
    run: dict[str, Any] = response.json()
    assert run["answer"] == "West African CFA franc"
    assert run["citations"]
    return run


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name.replace("`", ""))
def test_a_client_shows_the_demos_answer(client: Client, demo: Demo, native: dict[str, Any]) -> None:
    row = documented()[client.name]
    for shown in ask(client, *(Job(mode, demo.url, QUESTION, MODEL) for mode in client.modes)):
        assert (shown["error"], shown["text"]) == (None, native["answer"])
        assert shown["usage"]["output"] == native["usage"]["completion_tokens"]
        if row["reasoning"] == "yes":
            for step in native["steps"]:
                assert step["reasoning"].strip() in shown["reasoning"]
        if row["citations"] == "yes":
            assert [one["title"] for one in shown["citations"]] == [one["title"] for one in native["citations"]]
        if row["sources"] == "yes":
            found = {passage["title"] for step in native["steps"] for passage in step["passages"]}
            assert {one["title"] for one in shown["sources"]} == found
