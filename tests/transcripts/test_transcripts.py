"""The server writes the recorded streams, byte for byte, and the SDK reads them, whole and in single bytes."""

import httpx
import pytest

from searchr1_client import SearchR1
from searchr1_client._sse import EventDecoder
from searchr1_client.events import KnownEvent, Run, UnknownEvent
from searchr1_client.fold import RunFold
from tests.transcripts.scenes import FOLDER, QUESTION, SCENES, normalized, played, transcript

STATUSES = {
    "answered": "completed",
    "search_failed": "completed",
    "exhausted": "exhausted",
    "engine_failed": "failed",
    "cancelled": "cancelled",
}


def folded(events: list[KnownEvent | UnknownEvent]) -> Run:
    fold = RunFold()
    for event in events:
        fold.add(event)
    return fold.run()


def test_every_transcript_has_its_scene() -> None:
    assert {path.stem for path in FOLDER.glob("*.sse")} == set(SCENES) == set(STATUSES)


@pytest.mark.parametrize("name", SCENES)
async def test_the_server_writes_it(name: str) -> None:
    assert (await played(SCENES[name])).decode() == transcript(name).decode()


@pytest.mark.parametrize("name", SCENES)
def test_the_sdk_reads_it_in_pieces_of_any_size(name: str) -> None:
    recorded = transcript(name)
    whole = list(EventDecoder().feed(recorded))
    assert [event.seq for event in whole] == list(range(len(whole)))
    assert not any(isinstance(event, UnknownEvent) for event in whole)
    for size in (1, 2, 7, 64, 1000):
        decoder = EventDecoder()
        pieces = [recorded[i : i + size] for i in range(0, len(recorded), size)]
        assert [event for piece in pieces for event in decoder.feed(piece)] == whole
    run = folded(whole)
    assert (run.status, run.question, run.model) == (STATUSES[name], QUESTION, "demo")


@pytest.mark.parametrize("name", SCENES)
def test_a_stream_of_the_sdk_gives_the_same_run(name: str) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=transcript(name))

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as http,
        SearchR1(base_url="http://h", http_client=http).research.stream(QUESTION) as stream,
    ):
        run = stream.get_final_run()
    assert run.model_copy(update={"created": 0}) == folded(list(EventDecoder().feed(transcript(name))))


def test_what_the_runs_amount_to() -> None:
    runs = {name: folded(list(EventDecoder().feed(transcript(name)))) for name in SCENES}
    assert runs["answered"].answer == "West African CFA franc"
    assert [citation.index for citation in runs["answered"].citations] == [1]
    assert runs["answered"].steps[0].passages[0].title == "Mali"
    failed = runs["search_failed"].steps[0].search_error
    assert failed is not None
    assert (failed.code, runs["search_failed"].citations) == ("timeout", [])
    assert [step.invalid for step in runs["exhausted"].steps] == ["no_action", "no_action"]
    assert runs["exhausted"].answer is None
    assert runs["engine_failed"].error is not None
    assert runs["engine_failed"].error.code == "engine_error"
    assert runs["cancelled"].steps[0].reasoning == "I need Mali."


def test_only_ids_and_times_are_normalized() -> None:
    told = b'id: 7\ndata: {"run_id":"run_' + b"0a" * 16 + b'","t_ms":1.5e-3,"first_token_ms":null,"searches":3}'
    kept = b'id: 7\ndata: {"run_id":"run_' + b"00" * 16 + b'","t_ms":0.0,"first_token_ms":null,"searches":3}'
    assert normalized(told) == kept
