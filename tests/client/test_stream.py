"""Streams of both clients: events, text, the whole run; taken up when lost, cancelled when left."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

import searchr1_client as sdk
from searchr1_client._stream_state import MAX_ATTEMPTS
from searchr1_client.events import Run
from tests.client.conftest import (
    CREATED,
    EVENTS,
    RUN,
    RUN_ID,
    Server,
    event,
    refusal,
    sse,
    stream,
)

KINDS = ["run.started", "think.delta", "future.event", "answer.delta", "answer.delta", "answer.completed"]
EVENTS_PATH = f"GET /v1/research/{RUN_ID}/events"


class Reading:
    """The yield of a stream before it ended or raised."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self.seqs: list[int] = []
        self.run: Run | None = None
        self.error: BaseException | None = None

    def take(self, event: sdk.KnownEvent | sdk.UnknownEvent) -> None:
        self.types.append(event.type)
        self.seqs.append(event.seq)


Read = Callable[..., Awaitable[Reading]]


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Read:
    """Reads a stream to its end, or up to ``stop`` events; then the whole run, unless it was left."""

    async def sync(server: Server, method: str, args: tuple[Any, ...], stop: int | None, given: Any) -> Reading:
        reading = Reading()
        try:
            with getattr(server.client().research, method)(*args, **given) as following:
                for event in following:
                    reading.take(event)
                    if len(reading.seqs) == stop:
                        return reading
                reading.run = following.get_final_run()
        except Exception as error:  # noqa: BLE001 (the test judges it)
            reading.error = error
        return reading

    async def awaited(server: Server, method: str, args: tuple[Any, ...], stop: int | None, given: Any) -> Reading:
        reading = Reading()
        try:
            async with getattr(server.async_client().research, method)(*args, **given) as following:
                async for event in following:
                    reading.take(event)
                    if len(reading.seqs) == stop:
                        return reading
                reading.run = await following.get_final_run()
        except Exception as error:  # noqa: BLE001 (the test judges it)
            reading.error = error
        return reading

    async def either(
        server: Server, *args: Any, method: str = "stream", stop: int | None = None, **given: Any
    ) -> Reading:
        chosen = sync if request.param == "sync" else awaited
        return await chosen(server, method, args or ("Why?",), stop, given)

    return either


async def test_events_then_the_whole_run(read: Read) -> None:
    whole = sse(*EVENTS)
    server = Server(stream(whole[:50], whole[50:51], b"", whole[51:] + b": ping\n" + b"data: never read\n\n"))
    reading = await read(server)
    assert reading.error is None
    assert reading.types == [*KINDS, "run.completed"]
    assert reading.run is not None
    assert (reading.run.answer, reading.run.status, reading.run.created) == ("Mali", "completed", CREATED)
    assert server.paths == ["POST /v1/research"]
    assert server.cancels == []


async def test_a_failed_run_is_a_run(read: Read) -> None:
    reading = await read(
        Server(
            stream(
                sse(*EVENTS[:2], event(2, "x"), event(3, "y"), event(4, "z")),
                sse(event(5, "run.failed", error={"code": "engine_error", "message": "died"}, usage={})),
            )
        )
    )
    assert reading.error is None
    assert reading.run is not None
    assert reading.run.status == "failed"
    assert reading.run.error is not None
    assert reading.run.error.message == "died"


LOSSES = [
    None,
    httpx.ReadError("reset by peer"),
    httpx.RemoteProtocolError("peer closed"),
    httpx.ReadTimeout("slow"),
]


@pytest.mark.parametrize("loss", LOSSES)
async def test_a_lost_stream_is_taken_up_without_gaps_or_repeats(read: Read, loss: Exception | None) -> None:
    server = Server(
        stream(sse(*EVENTS[:2]), sse(EVENTS[2])[:30], error=loss),
        httpx.ConnectError("refused"),
        refusal(503, **{"retry-after": "0"}),
        stream(sse(*EVENTS[1:4]), error=loss),
        stream(sse(*EVENTS[4:])),
    )
    reading = await read(server)
    assert reading.error is None
    assert reading.seqs == [0, 1, 2, 3, 4, 5, 6]
    assert reading.run is not None
    assert reading.run.answer == "Mali"
    assert server.paths == ["POST /v1/research", *[EVENTS_PATH] * 4]
    assert [r.headers.get("last-event-id") for r in server.requests] == [None, "1", "1", "1", "3"]


async def test_a_stream_lost_before_its_first_event_is_taken_up_from_the_start(read: Read) -> None:
    server = Server(stream(b": ping\n", error=httpx.ReadError("")), stream(sse(*EVENTS)))
    reading = await read(server)
    assert reading.seqs == [0, 1, 2, 3, 4, 5, 6]
    assert "last-event-id" not in server.requests[1].headers


async def test_attempts_are_counted_from_the_last_event(read: Read) -> None:
    one_by_one = [stream(sse(e), error=httpx.ReadError("")) for e in EVENTS[1:6]]
    down = [httpx.ConnectError("") for _ in range(MAX_ATTEMPTS - 1)]
    server = Server(stream(sse(EVENTS[0])), *one_by_one, *down, stream(sse(EVENTS[6])))
    reading = await read(server)
    assert reading.error is None
    assert reading.seqs == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("answers", "says", "num_requests"),
    [
        ([stream() for _ in range(9)], "lost before the run ended$", 1 + MAX_ATTEMPTS),
        ([httpx.ConnectError("refused")] * 9, "could not be taken up again: .*refused", 1 + MAX_ATTEMPTS),
        ([refusal(503, **{"retry-after": "0"})] * 9, "could not be taken up again: no", 1 + MAX_ATTEMPTS),
        ([refusal(404)], "could not be taken up again: no", 2),
        ([refusal(401)], "could not be taken up again: no", 2),
    ],
)
async def test_a_run_that_cannot_be_followed_is_an_error(
    read: Read, answers: list[httpx.Response | Exception], says: str, num_requests: int
) -> None:
    fresh = [stream() if isinstance(a, httpx.Response) and a.status_code == 200 else a for a in answers]
    server = Server(stream(sse(*EVENTS[:3])), *fresh)
    reading = await read(server)
    assert reading.seqs == [0, 1, 2]
    with pytest.raises(sdk.StreamEndedError, match=says):
        raise reading.error or AssertionError
    assert isinstance(reading.error, sdk.StreamEndedError)
    assert (reading.error.run_id, reading.error.last_seq) == (RUN_ID, 2)
    assert (reading.error.__cause__ is None) == ("again" not in says)
    assert len(server.requests) == num_requests
    assert server.cancels == []  # it may still be resumed


@pytest.mark.parametrize("given", [{"reconnect": False}, {"store": False}])
async def test_a_stream_that_shall_not_or_cannot_be_taken_up_ends(read: Read, given: dict[str, bool]) -> None:
    server = Server(stream(sse(*EVENTS[:3]), error=httpx.ReadTimeout("")))
    reading = await read(server, **given)
    assert isinstance(reading.error, sdk.StreamEndedError)
    assert "fell silent" in str(reading.error)
    assert len(server.requests) == 1


async def test_nor_can_one_of_an_unknown_run(read: Read) -> None:
    nameless = [{**e, "run_id": "../models"} for e in EVENTS]
    server = Server(stream(sse(*nameless[:3]), headers={"x-run-id": ""}))
    reading = await read(server)
    assert isinstance(reading.error, sdk.StreamEndedError)
    assert reading.error.run_id is None
    server = Server(stream(sse(*nameless), headers={"x-run-id": "a/b"}))
    assert (await read(server, stop=2)).error is None
    assert server.cancels == []


@pytest.mark.parametrize(
    ("body", "says", "seqs"),
    [
        (sse(*EVENTS[:2]) + b"data: [DONE]\n\n", "not an event of a run", [0, 1]),
        (sse(EVENTS[0], EVENTS[2]), "event 2 came after 0: events are missing", [0]),
        (b"data: " + b"x" * 5_000_000, "larger than", []),
    ],
)
async def test_what_is_no_event_ends_the_stream_once_the_events_before_it_were_given(
    read: Read, body: bytes, says: str, seqs: list[int]
) -> None:
    server = Server(stream(body))
    reading = await read(server)
    assert reading.seqs == seqs
    assert isinstance(reading.error, sdk.StreamFormatError)
    assert says in str(reading.error)
    assert reading.error.run_id == RUN_ID
    assert len(server.cancels) == 1


@pytest.mark.parametrize("kind", ["text/html", "application/json", ""])
async def test_success_that_is_no_stream_is_an_error(read: Read, kind: str) -> None:
    server = Server(answer := stream(b"<html>", headers={"content-type": kind}))
    reading = await read(server)
    assert isinstance(reading.error, sdk.StreamFormatError)
    assert answer.is_closed


async def test_opening_is_retried_and_refusals_are_raised(read: Read) -> None:
    server = Server(refusal(503), httpx.ConnectError(""), stream(sse(*EVENTS)))
    assert (await read(server)).seqs == [0, 1, 2, 3, 4, 5, 6]
    reading = await read(Server(refusal(400)))
    assert isinstance(reading.error, sdk.BadRequestError)


async def test_leaving_early_cancels_on_the_server_and_closes_the_connection(read: Read) -> None:
    server = Server(answer := stream(sse(*EVENTS[:2]), sse(*EVENTS[2:])))
    reading = await read(server, stop=1)
    assert reading.error is None
    assert [str(request.url) for request in server.cancels] == [f"http://server/v1/research/{RUN_ID}/cancel"]
    assert answer.is_closed


@pytest.mark.parametrize("failure", [refusal(404), refusal(503), httpx.ConnectError("gone"), httpx.ReadTimeout("slow")])
async def test_a_cancel_that_fails_is_nobodys_concern(read: Read, failure: httpx.Response | Exception) -> None:
    server = Server(answer := stream(sse(*EVENTS[:2])))
    server.cancel_answer = failure
    assert (await read(server, stop=1)).error is None
    assert len(server.cancels) == 1
    assert answer.is_closed


async def test_a_run_may_be_left_running(read: Read) -> None:
    server = Server(stream(sse(*EVENTS[:2])))
    await read(server, stop=1, cancel_on_exit=False)
    assert server.cancels == []


async def test_a_resumed_run_comes_after_an_event_and_is_left_running(read: Read) -> None:
    server = Server(stream(sse(*EVENTS[4:])), httpx.Response(200, json=RUN | {"answer": "Mali"}))
    reading = await read(server, RUN_ID, method="resume", after=3)
    assert reading.seqs == [4, 5, 6]
    assert reading.run is not None
    assert (reading.run.answer, reading.run.created) == ("Mali", 5)
    assert server.paths == [EVENTS_PATH, f"GET /v1/research/{RUN_ID}"]
    assert server.requests[0].headers["last-event-id"] == "3"
    server = Server(stream(sse(*EVENTS)))
    assert (await read(server, RUN_ID, method="resume", stop=1)).seqs == [0]
    assert server.cancels == []


async def test_a_replay_streams_too(read: Read) -> None:
    server = Server(stream(sse(*EVENTS)))
    reading = await read(server, "run_9", method="stream_replay", on_miss="search", temperature=0.0)
    assert reading.run is not None
    assert server.paths == ["POST /v1/research/replay"]


async def test_the_text_stream_is_the_answers_text() -> None:
    with Server(stream(sse(*EVENTS))).client().research.stream("Why?") as following:
        assert "".join(following.text_stream) == "Mali"
        assert following.get_final_run().answer == "Mali"
    async with Server(stream(sse(*EVENTS))).async_client().research.stream("Why?") as awaited:
        assert [text async for text in awaited.text_stream] == ["Ma", "li"]
        assert (await awaited.get_final_run()).answer == "Mali"


async def test_the_run_and_its_answer_have_names_before_any_event() -> None:
    server = Server(stream(sse(*EVENTS), headers={"x-request-id": "req_1"}))
    following = server.client().research.stream("Why?")
    assert following.run_id is None
    with pytest.raises(RuntimeError, match="before its context"):
        _ = following.response
    with following:
        assert following.run_id == RUN_ID
        assert following.response.headers["x-request-id"] == "req_1"


async def test_a_stream_is_read_inside_its_context() -> None:
    server = Server(stream(sse(*EVENTS[:1]), sse(*EVENTS[1:])))
    following = server.client().research.stream("Why?")
    with pytest.raises(RuntimeError, match="inside its context"):
        next(following)
    assert server.requests == []
    with following:
        next(following)
    with pytest.raises(RuntimeError, match="inside its context"):
        next(following)
    awaited = Server(stream(sse(*EVENTS))).async_client().research.stream("Why?")
    with pytest.raises(RuntimeError, match="inside its context"):
        await anext(awaited)


class Break(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Break])
async def test_an_error_in_the_block_cancels_the_run_and_passes(error: type[BaseException]) -> None:
    server = Server(answer := stream(sse(*EVENTS[:1]), sse(*EVENTS[1:])))
    with pytest.raises(error), server.client().research.stream("Why?"):
        raise error
    assert (len(server.cancels), answer.is_closed) == (1, True)


@pytest.mark.parametrize(("method", "what"), [("stream", "Why?"), ("stream_replay", RUN_ID)])
@pytest.mark.parametrize("key", [None, "order-17"])
async def test_a_stream_has_one_key_over_all_its_retries(read: Read, method: str, what: str, key: str | None) -> None:
    # Nothing of the run was read before the second answer: it is the call itself that is sent again.
    server = Server(httpx.ConnectError("refused"), refusal(503, **{"retry-after": "0"}), stream(sse(*EVENTS)))
    reading = await read(server, what, method=method, idempotency_key=key)
    assert reading.error is None
    sent = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(sent) == 1
    assert key is None or sent == {key}
