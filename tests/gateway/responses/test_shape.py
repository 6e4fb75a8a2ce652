"""Native events as Responses events: their order, their types, and what they add up to."""

from typing import Any

import pytest

from searchr1.gateway.responses.shape import ResponseShape, response_of
from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client import events as wire
from searchr1_client.fold import RunFold
from tests.gateway.responses.conftest import (
    CITATION,
    CITATION_BY_NAME,
    KEY,
    MALI,
    NAMED,
    RESPONSE,
    STREAM_EVENT,
    Script,
    checked,
    meta,
    types_of,
)

SOURCES = "web_search_call.action.sources"
RESULTS = "web_search_call.results"

ANSWERED = (
    Script()
    .think(1, "\n", " I need", " Mali. ")
    .search(1, "currency of Mali", MALI, NAMED)
    .think(2, "Found it.")
    .answer(2, "franc", CITATION, CITATION_BY_NAME)
    .ends(2)
)
RUNS = {
    "answered": ANSWERED,
    "search failed": Script().think(1, "x").search_fails(1, "q").answer(2, "a").ends(2),
    "no answer": Script().think(1, "x").search(1, "q").invalid(2).think(3, "y").ends(3, "exhausted"),
    "cut in thought": Script().think(1, "x").ends(1, "truncated"),
    "cut in a search": Script().think(1, "x").search_starts(1, "q").ends(1, "cancelled"),
    "late": Script().think(1, "x").ends(1, "deadline"),
    "broken": Script().think(1, "x").fails(1),
    "broken at once": Script().fails(0),
    "empty answer": Script().answer(1, "").ends(1),
    "still thinking": Script().think(1, "x"),
    "still searching": Script().think(1, "x").search_starts(1, "q"),
    "between turns": Script().think(1, "x").search(1, "q", MALI),
}


def told(script: Script, about: RunMeta | None = None) -> list[dict[str, Any]]:
    shape = ResponseShape(about or meta())
    return [one for event in script.events for one in shape.add(event)]


def test_the_order_is_openais() -> None:
    assert types_of(told(ANSWERED)) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.annotation.added",
        "output_text.annotation.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("summary", [None, "auto"])
@pytest.mark.parametrize("include", [[], [SOURCES, RESULTS]])
def test_events_are_openais_and_add_up(name: str, summary: str | None, include: list[str]) -> None:
    about = meta(summary=summary, include=include)
    shape = ResponseShape(about)
    fold, numbers = RunFold(created=about.created), []
    for event in RUNS[name].events:
        fold.add(event)
        for one in shape.add(event):
            checked(STREAM_EVENT, one)
            numbers.append(one["sequence_number"])
        if isinstance(event, wire.RunStarted | wire.ThinkDelta):
            # At any time the run tells as much as its events.
            assert response_of(about, fold.so_far()) == shape.response()
    assert numbers == list(range(len(numbers)))
    assert response_of(about, fold.so_far()) == shape.response()
    checked(RESPONSE, shape.response())


@pytest.mark.parametrize("name", RUNS)
def test_every_item_that_was_added_is_done(name: str) -> None:
    events = told(RUNS[name], meta(summary="auto"))
    opened = [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    done = {event["item"]["id"]: event["item"] for event in events if event["type"].endswith("item.done")}
    if not name.startswith(("still", "between")):
        assert opened == list(done)
        assert events[-1]["response"]["output"] == list(done.values())
        assert all(item["status"] in ("completed", "failed", "incomplete") for item in done.values())


@pytest.mark.parametrize("name", RUNS)
def test_deltas_add_up_to_what_is_done(name: str) -> None:
    texts: dict[tuple[str, str], str] = {}
    for event in told(RUNS[name], meta(summary="auto")):
        kind, _, last = event["type"].rpartition(".")
        if last == "delta":
            texts[kind, event["item_id"]] = texts.get((kind, event["item_id"]), "") + event["delta"]
        elif last == "done" and "text" in event:
            assert texts.pop((kind, event["item_id"]), "") == event["text"]


@pytest.mark.parametrize(
    ("name", "last", "status", "reason"),
    [
        ("answered", "response.completed", "completed", None),
        ("no answer", "response.incomplete", "incomplete", "max_messages"),
        ("cut in thought", "response.incomplete", "incomplete", "max_output_tokens"),
        ("late", "response.incomplete", "incomplete", "max_output_tokens"),
        ("cut in a search", "response.incomplete", "cancelled", None),
        ("broken", "response.failed", "failed", None),
    ],
)
def test_ends(name: str, last: str, status: str, reason: str | None) -> None:
    event = told(RUNS[name])[-1]
    assert event["type"] == last
    assert event["response"]["status"] == status
    assert (event["response"]["incomplete_details"] or {}).get("reason") == reason
    assert (event["response"]["completed_at"] is not None) == (status == "completed")


def test_the_answered_response() -> None:
    response = told(ANSWERED, meta(include=[SOURCES, RESULTS]))[-1]["response"]
    first, search, second, message = response["output"]
    assert first["id"] == f"rs_{KEY}_1"
    assert first["content"] == [{"type": "reasoning_text", "text": "I need Mali. "}]
    assert first["summary"] == []
    assert second["id"] == f"rs_{KEY}_2"
    assert search["id"] == f"ws_{KEY}_1"
    assert search["action"] == {
        "type": "search",
        "query": "currency of Mali",
        "queries": ["currency of Mali"],
        "sources": [{"type": "url", "url": "https://mali.example"}, {"type": "url", "url": "urn:passage:Chad"}],
    }
    assert [(result["title"], result["url"]) for result in search["results"]] == [
        ("Mali", "https://mali.example"),
        ("Chad", "urn:passage:Chad"),
    ]
    assert message["id"] == f"msg_{KEY}"
    [part] = message["content"]
    assert part["text"] == "franc"
    assert part["annotations"][0] == {
        "type": "url_citation",
        "start_index": 0,
        "end_index": 5,
        "title": "Mali",
        "url": "https://mali.example",
    }
    assert (part["annotations"][1]["title"], part["annotations"][1]["url"]) == ("Chad", "urn:passage:Chad")
    assert response["completed_at"] == response["created_at"] + 2
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (15, 20, 35)
    assert usage["input_tokens_details"]["cached_tokens"] == 15
    assert usage["output_tokens_details"]["reasoning_tokens"] == 18


def test_sources_and_results_come_only_when_included() -> None:
    search = told(ANSWERED)[-1]["response"]["output"][1]
    assert "sources" not in search["action"]
    assert "results" not in search
    fold = RunFold()
    for event in ANSWERED.events:
        fold.add(event)
    later = response_of(meta(), fold.run(), include=frozenset({SOURCES}))
    assert "sources" in later["output"][1]["action"]


def test_a_failed_search_is_a_failed_item() -> None:
    events = told(RUNS["search failed"])
    assert "response.web_search_call.completed" not in [event["type"] for event in events]
    assert events[-1]["response"]["output"][1]["status"] == "failed"
    assert events[-1]["response"]["status"] == "completed"


def test_a_void_answer_is_never_sent() -> None:
    events = told(RUNS["no answer"])
    assert "void" not in str(events)
    assert not any("output_text" in event["type"] for event in events)


def test_a_summary_is_told_when_asked_for() -> None:
    events = told(ANSWERED, meta(summary="auto"))
    told_by_summary = [event["delta"] for event in events if event["type"] == "response.reasoning_summary_text.delta"]
    assert told_by_summary == ["I need", " Mali. ", "Found it."]
    assert events[-1]["response"]["output"][0]["summary"] == [{"type": "summary_text", "text": "I need Mali. "}]


def test_a_broken_run_tells_why() -> None:
    error = told(RUNS["broken"])[-1]["response"]["error"]
    assert error == {"code": "server_error", "message": "it broke"}
