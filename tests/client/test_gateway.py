"""Both clients against the real gateway on a socket: whole runs, cut connections, runs that are left."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

import searchr1_client as sdk
from searchr1.errors import EngineError
from searchr1_client.events import AnswerCompleted, RunCompleted, SearchCompleted
from tests.gateway.conftest import ADMIN_KEY, MODEL, Stage, StageEngine, eventually, running_stage

T = TypeVar("T")
QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running_stage() as running:
        yield running


async def in_thread(stage: Stage, use: Callable[[sdk.SearchR1], T]) -> T:
    """Return what ``use`` gives of a sync client."""

    def work() -> T:
        with sdk.SearchR1(base_url=stage.url, api_key=ADMIN_KEY) as client:
            return use(client)

    return await asyncio.to_thread(work)


class Wire:
    """A TCP relay to the gateway, whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.num_connections = 0
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await eventually(lambda: not self._writers)
            await server.wait_closed()

    def cut(self) -> None:
        """Break every connection, as a network does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        ends = {writer, far_writer}
        self._writers |= ends
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for end in ends:
            end.transport.abort()
        self._writers -= ends


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
    except OSError:
        return


@pytest.fixture
async def wire(stage: Stage) -> AsyncIterator[Wire]:
    async with Wire(int(stage.url.rpartition(":")[2])).relaying() as relay:
        yield relay


async def test_a_question_from_its_asking_to_its_deletion(stage: Stage) -> None:
    async with sdk.AsyncSearchR1(base_url=stage.url, api_key=ADMIN_KEY) as client:
        asked = await client.research.create(QUESTION, max_turns=2)
        assert (asked.answer, asked.status, asked.trajectory) == (ANSWER, "completed", None)
        stored = await client.research.retrieve(asked.id)
        assert stored.trajectory is not None
        for record in (asked.id, stored):
            replayed = await client.research.replay(record)
            assert replayed.answer == ANSWER
        assert stage.retriever.queries == ["currency of Mali"]
        followed = await client.research.create("And its capital?", previous_run_id=asked.id)
        listed = await client.research.list(limit=2)
        assert [run.id for run in listed.data] == [followed.id, replayed.id]
        rest = await client.research.list(after=listed.last_id)
        assert [run.id for run in rest.data][-1] == asked.id
        assert (await client.research.delete(asked.id)).deleted
        with pytest.raises(sdk.NotFoundError) as caught:
            await client.research.retrieve(asked.id)
        assert caught.value.code == "run_not_found"
        assert caught.value.request_id
        assert [model.id for model in (await client.models.list()).data] == [MODEL]


async def test_the_same_from_a_thread(stage: Stage) -> None:
    def use(client: sdk.SearchR1) -> None:
        asked = client.research.create(QUESTION)
        with client.research.stream(QUESTION, temperature=0.0) as stream:
            events = list(stream)
            run = stream.get_final_run()
        assert [type(event) for event in events][-2:] == [AnswerCompleted, RunCompleted]
        assert any(isinstance(event, SearchCompleted) for event in events)
        assert run.answer == asked.answer == ANSWER
        assert run == client.research.retrieve(run.id).model_copy(update={"trajectory": None})
        with client.research.resume(run.id, after=3) as again:
            assert list(again) == events[4:]
        raw = client.research.with_raw_response.retrieve(asked.id)
        assert raw.request_id
        assert raw.parse().id == asked.id
        with client.research.stream_replay(asked.id) as replay:
            assert "".join(replay.text_stream) == ANSWER
        assert client.research.cancel(asked.id).status == "completed"
        assert len(client.research.list().data) == 3
        assert client.models.list().data[0].id == MODEL

    await in_thread(stage, use)


async def test_refusals_name_the_field(stage: Stage) -> None:
    async with sdk.AsyncSearchR1(base_url=stage.url) as client:
        with pytest.raises(sdk.BadRequestError) as caught:
            await client.research.create(QUESTION, max_turns=999)
        assert caught.value.param == "max_turns"
        with pytest.raises(sdk.NotFoundError) as missing:
            await client.research.stream(QUESTION, model="other").__aenter__()
        assert missing.value.code == "model_not_found"


async def test_keys() -> None:
    async with running_stage(api_keys=("good",)) as stage, sdk.AsyncSearchR1(base_url=stage.url) as client:
        with pytest.raises(sdk.AuthenticationError):
            await client.research.create(QUESTION)
        assert (await client.with_options(api_key="good").research.create(QUESTION)).answer == ANSWER


async def test_a_full_server_is_tried_again_and_then_an_error() -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with (
        running_stage(engine=engine, max_concurrent_runs=1) as stage,
        sdk.AsyncSearchR1(base_url=stage.url, max_retries=0) as client,
        client.research.stream(QUESTION) as stream,
    ):
        await anext(stream)
        with pytest.raises(sdk.ServiceUnavailableError) as caught:
            await client.research.create(QUESTION)
        assert caught.value.code == "overloaded"
        assert caught.value.retry_after_s


async def test_a_cut_connection_is_made_again_and_nothing_is_missing(stage: Stage, wire: Wire) -> None:
    stage.engine.hold = asyncio.Event()
    async with sdk.AsyncSearchR1(base_url=wire.url) as client, client.research.stream(QUESTION) as stream:
        events = [await anext(stream), await anext(stream)]
        wire.cut()
        stage.engine.hold.set()
        events += [event async for event in stream]
        run = await stream.get_final_run()
    assert [event.seq for event in events] == list(range(len(events)))
    assert (run.status, run.answer) == ("completed", ANSWER)
    assert wire.num_connections == 2
    assert len(stage.engine.prompts) == 2  # one run of two turns: nothing was asked twice


async def test_a_cut_connection_of_a_thread_is_made_again(stage: Stage, wire: Wire) -> None:
    stage.engine.hold = asyncio.Event()
    loop = asyncio.get_running_loop()

    def cut() -> None:
        assert stage.engine.hold is not None
        wire.cut()
        stage.engine.hold.set()

    def use(_: sdk.SearchR1) -> tuple[list[int], sdk.Run]:
        with sdk.SearchR1(base_url=wire.url) as client, client.research.stream(QUESTION) as stream:
            seqs = [next(stream).seq, next(stream).seq]
            loop.call_soon_threadsafe(cut)
            seqs += [event.seq for event in stream]
            return seqs, stream.get_final_run()

    seqs, run = await in_thread(stage, use)
    assert seqs == list(range(len(seqs)))
    assert run.answer == ANSWER
    assert wire.num_connections == 2


async def test_a_run_that_was_not_stored_cannot_be_taken_up(stage: Stage, wire: Wire) -> None:
    stage.engine.hold = asyncio.Event()
    async with sdk.AsyncSearchR1(base_url=wire.url) as client, client.research.stream(QUESTION, store=False) as stream:
        await anext(stream)
        wire.cut()
        with pytest.raises(sdk.StreamEndedError):
            await stream.get_final_run()
    await eventually(lambda: stage.engine.num_open == 0)


async def test_leaving_frees_the_engine_though_the_server_would_wait(stage: Stage) -> None:
    stage.engine.hold = asyncio.Event()

    def use(client: sdk.SearchR1) -> tuple[str, str]:
        with client.research.stream(QUESTION) as stream:
            next(stream)
        assert stream.run_id is not None
        return stream.run_id, client.research.retrieve(stream.run_id).status

    assert (await in_thread(stage, use))[1] == "cancelled"
    assert stage.engine.num_open == 0
    async with sdk.AsyncSearchR1(base_url=stage.url) as client:
        async with client.research.stream(QUESTION) as stream:
            await anext(stream)
        assert stage.engine.num_open == 0
        assert (await client.research.retrieve(stream.run_id or "")).status == "cancelled"


@pytest.mark.parametrize("store", [True, False])
async def test_cancelling_the_task_frees_the_engine(stage: Stage, store: bool) -> None:
    stage.engine.hold = asyncio.Event()
    async with sdk.AsyncSearchR1(base_url=stage.url) as client:
        task = asyncio.create_task(_follow(client, store))
        await eventually(lambda: stage.engine.num_open == 1)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: stage.engine.num_open == 0)
        await eventually(lambda: stage.services.default.seats.num_running == 0)


async def _follow(client: sdk.AsyncSearchR1, store: bool) -> None:
    async with client.research.stream(QUESTION, store=store) as stream:
        await stream.get_final_run()


async def test_a_run_that_is_left_running_can_be_resumed(stage: Stage) -> None:
    stage.engine.hold = asyncio.Event()
    async with sdk.AsyncSearchR1(base_url=stage.url) as client:
        async with client.research.stream(QUESTION, cancel_on_exit=False) as stream:
            last = await anext(stream)
        async with client.research.resume(stream.run_id or "", after=last.seq) as again:
            assert (await anext(again)).seq == last.seq + 1
            stage.engine.hold.set()
            assert (await again.get_final_run()).answer == ANSWER


async def test_what_an_engine_fails_before_any_output_is_an_error(stage: Stage) -> None:
    stage.engine.error = EngineError("the engine died")
    async with sdk.AsyncSearchR1(base_url=stage.url, max_retries=0) as client:
        with pytest.raises(sdk.InternalServerError, match="engine failed at this run"):
            await client.research.create(QUESTION)
        with pytest.raises(sdk.InternalServerError, match="engine failed at this run"):
            async with client.research.stream(QUESTION) as stream:
                await stream.get_final_run()
