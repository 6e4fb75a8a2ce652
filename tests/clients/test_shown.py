"""Each real client's view of a run, held against the table in docs/guides/clients.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.types import Send

from searchr1.gateway.routes import streaming
from tests.gateway.conftest import Stage
from tests.gateway.threaded import threaded_stage

from .clients import CLIENTS, Client, Job, ask
from .stages import ANSWER, QUERY, QUESTION, THOUGHTS, PausingEngine, retriever
from .table import documented, observed

WITH_SEARCHES = ("responses", "`@ai-sdk/openai`", "`searchr1_client`")


@pytest.fixture(scope="module")
def nameless() -> Iterator[Stage]:
    """A gateway whose passages have no URL."""
    with threaded_stage(retriever=retriever(url=None)) as stage:
        yield stage


@pytest.fixture(scope="module")
def pausing() -> Iterator[Stage]:
    """A gateway with heartbeats in its streams."""
    engine = PausingEngine()
    beat = streaming.EventStream._beat

    async def counted(stream: streaming.EventStream, send: Send) -> None:
        await beat(stream, send)
        engine.pings.append(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming.EventStream, "_beat", counted)
        with threaded_stage(engine=engine, retriever=retriever(), heartbeat_s=0.05) as stage:
            yield stage


@dataclass(frozen=True)
class Reports:
    """One client's report of each job."""

    client: Client
    whole: dict[str, Any]
    streams: list[dict[str, Any]]
    bad: dict[str, Any]
    broken: dict[str, Any]
    nameless: dict[str, Any]
    heartbeats: dict[str, Any]


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda client: client.name.replace("`", ""))
def reports(request: pytest.FixtureRequest, answering: Stage, dying: Stage, nameless: Stage, pausing: Stage) -> Reports:
    """All in one process: some clients take seconds to import."""
    client: Client = request.param
    whole, bad, broken, without_url, with_heartbeats, *streams = ask(
        client,
        Job("whole", answering.url, QUESTION),
        Job("whole", answering.url, " "),
        Job("stream", dying.url, QUESTION),
        Job("stream", nameless.url, QUESTION),
        Job("stream", pausing.url, QUESTION),
        *(Job(mode, answering.url, QUESTION) for mode in client.modes),
    )
    return Reports(client, whole, streams, bad, broken, without_url, with_heartbeats)


def test_the_table(reports: Reports) -> None:
    for stream in reports.streams:
        row = observed(reports.whole, stream, reports.bad, reports.broken)
        assert row == documented()[reports.client.name]


def test_streams_show_what_whole_runs_show(reports: Reports) -> None:
    whole = reports.whole
    assert whole["error"] is None
    assert whole["searches"] == ([QUERY] if reports.client.name.endswith(WITH_SEARCHES) else [])
    for stream in reports.streams:
        assert {name: stream[name] for name in ("error", "text", "reasoning", "searches")} == {
            name: whole[name] for name in ("error", "text", "reasoning", "searches")
        }


def test_what_came_before_a_break_is_shown(reports: Reports) -> None:
    assert reports.broken["text"] == ""
    if documented()[reports.client.name]["reasoning"] == "yes":
        assert reports.broken["reasoning"].startswith(THOUGHTS[0])


def test_passages_without_a_url_break_no_client(reports: Reports) -> None:
    shown = reports.nameless
    assert (shown["error"], shown["text"]) == (None, ANSWER)
    if documented()[reports.client.name]["citations"] == "yes":
        is_native = reports.client.name == "`searchr1_client`"
        assert shown["citations"] == [{"title": "Mali", "url": "" if is_native else "urn:passage:Mali"}]


def test_heartbeats_break_no_client(reports: Reports) -> None:
    for name in ("error", "text", "reasoning", "citations", "sources"):
        assert reports.heartbeats[name] == reports.streams[0][name]
