"""Leaving a stream: whatever the client, the engine is free at once."""

import time

import pytest

from tests.gateway.threaded import threaded_stage

from .clients import CLIENTS, Client, left_by
from .stages import QUESTION, endless_engine, retriever

# It shows nothing of a run before the answer, so there is nothing to leave at.
LEAVING = [client for client in CLIENTS if not client.name.endswith("`.chat()`")]


@pytest.mark.parametrize("client", LEAVING, ids=lambda client: client.name.replace("`", ""))
def test_leaving_frees_the_engine(client: Client) -> None:
    engine = endless_engine()
    with threaded_stage(engine=engine, retriever=retriever()) as stage, left_by(client, stage.url, QUESTION):
        assert engine.prompts
        while engine.num_open:
            time.sleep(0.01)
        assert len(engine.prompts) == 1
