"""``client.research``: new questions and stored runs."""

from typing import Literal, Unpack

from searchr1_client._request import (
    Call,
    ReplayOptions,
    RunOptions,
    cancel_call,
    create_call,
    delete_call,
    events_call,
    list_call,
    replay_call,
    retrieve_call,
)
from searchr1_client._stream import AsyncResearchStream, ResearchStream
from searchr1_client._stream_state import StreamState
from searchr1_client._transport import AsyncTransport, RawResponse, SyncTransport
from searchr1_client.events import Run, RunDeleted, RunList

OnMiss = Literal["fail", "search"]
LIST_LIMIT = 20


class RawResearch:
    """``Research`` with HTTP answers: each method returns a ``RawResponse``, whose ``parse()`` is the plain result."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def create(
        self, question: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> RawResponse[Run]:
        """See ``Research.create``."""
        return self._transport.call(create_call(question, options, key=idempotency_key))

    def replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> RawResponse[Run]:
        """See ``Research.replay``."""
        return self._transport.call(replay_call(run, options, on_miss=on_miss, key=idempotency_key))

    def retrieve(self, run_id: str) -> RawResponse[Run]:
        """See ``Research.retrieve``."""
        return self._transport.call(retrieve_call(run_id))

    def cancel(self, run_id: str) -> RawResponse[Run]:
        """See ``Research.cancel``."""
        return self._transport.call(cancel_call(run_id))

    def delete(self, run_id: str) -> RawResponse[RunDeleted]:
        """See ``Research.delete``."""
        return self._transport.call(delete_call(run_id))

    def list(self, *, limit: int = LIST_LIMIT, after: str | None = None) -> RawResponse[RunList]:
        """See ``Research.list``."""
        return self._transport.call(list_call(limit, after))


class Research:
    """Questions and runs. Every method raises ``APIConnectionError`` or a subclass of ``APIStatusError``."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport
        self.with_raw_response = RawResearch(transport)
        """Twin of this object whose methods return the HTTP answer as well."""

    def create(self, question: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]) -> Run:
        """Ask a question and wait for the whole run. A run that the engine fails is an ``InternalServerError``.

        A call that is sent again starts no second run: it carries ``idempotency_key``, or a random one. Give your own,
        1 to 255 printable ASCII characters, to repeat a question yourself, say after a crash.
        """
        return self.with_raw_response.create(question, idempotency_key=idempotency_key, **options).parse()

    def stream(
        self,
        question: str,
        *,
        reconnect: bool = True,
        cancel_on_exit: bool = True,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> ResearchStream:
        """Ask a question and follow the run as it happens. Use the result as a context manager."""
        call = create_call(question, options, key=idempotency_key, stream=True)
        return self._streaming(call, reconnect, cancel_on_exit)

    def resume(
        self, run_id: str, *, after: int = -1, reconnect: bool = True, cancel_on_exit: bool = False
    ) -> ResearchStream:
        """Follow a stored run from the event after number ``after`` on; also one that has long ended."""
        call = events_call(run_id, after)
        return self._streaming(call, reconnect, cancel_on_exit, run_id, after)

    def replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> Run:
        """Run a stored run (its id), or one that holds its ``trajectory``, again, with the searches of its record.

        ``on_miss`` says what becomes of a query that the record lacks: its search fails, or is made.
        """
        return self.with_raw_response.replay(run, on_miss=on_miss, idempotency_key=idempotency_key, **options).parse()

    def stream_replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        reconnect: bool = True,
        cancel_on_exit: bool = True,
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> ResearchStream:
        """Replay a run as ``replay`` does, and follow it as ``stream`` does."""
        call = replay_call(run, options, on_miss=on_miss, key=idempotency_key, stream=True)
        return self._streaming(call, reconnect, cancel_on_exit)

    def retrieve(self, run_id: str) -> Run:
        """Return a stored run as it stands; with its ``trajectory`` once it has ended."""
        return self.with_raw_response.retrieve(run_id).parse()

    def cancel(self, run_id: str) -> Run:
        """End a run at once. One that has ended stays as it is."""
        return self.with_raw_response.cancel(run_id).parse()

    def delete(self, run_id: str) -> RunDeleted:
        """End a run if need be, and have the server forget it."""
        return self.with_raw_response.delete(run_id).parse()

    def list(self, *, limit: int = LIST_LIMIT, after: str | None = None) -> RunList:
        """Return one page of the caller's stored runs, newest first.

        ``after`` is the ``last_id`` of the page before.
        """
        return self.with_raw_response.list(limit=limit, after=after).parse()

    def _streaming(
        self, call: Call[Run], reconnect: bool, cancel_on_exit: bool, run_id: str | None = None, after: int = -1
    ) -> ResearchStream:
        policy = self._transport.config.retry_policy
        state = StreamState(
            call, run_id=run_id, after=after, reconnect=reconnect, cancel_on_exit=cancel_on_exit, retry_policy=policy
        )
        return ResearchStream(self._transport, state)


class AsyncRawResearch:
    """The asyncio twin of ``RawResearch``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self, question: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]
    ) -> RawResponse[Run]:
        """See ``Research.create``."""
        return await self._transport.call(create_call(question, options, key=idempotency_key))

    async def replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> RawResponse[Run]:
        """See ``Research.replay``."""
        return await self._transport.call(replay_call(run, options, on_miss=on_miss, key=idempotency_key))

    async def retrieve(self, run_id: str) -> RawResponse[Run]:
        """See ``Research.retrieve``."""
        return await self._transport.call(retrieve_call(run_id))

    async def cancel(self, run_id: str) -> RawResponse[Run]:
        """See ``Research.cancel``."""
        return await self._transport.call(cancel_call(run_id))

    async def delete(self, run_id: str) -> RawResponse[RunDeleted]:
        """See ``Research.delete``."""
        return await self._transport.call(delete_call(run_id))

    async def list(self, *, limit: int = LIST_LIMIT, after: str | None = None) -> RawResponse[RunList]:
        """See ``Research.list``."""
        return await self._transport.call(list_call(limit, after))


class AsyncResearch:
    """The asyncio twin of ``Research``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.with_raw_response = AsyncRawResearch(transport)
        """Twin of this object whose methods return the HTTP answer as well."""

    async def create(self, question: str, *, idempotency_key: str | None = None, **options: Unpack[RunOptions]) -> Run:
        """See ``Research.create``."""
        return (await self.with_raw_response.create(question, idempotency_key=idempotency_key, **options)).parse()

    def stream(
        self,
        question: str,
        *,
        reconnect: bool = True,
        cancel_on_exit: bool = True,
        idempotency_key: str | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncResearchStream:
        """See ``Research.stream``. Nothing is sent before the result's context is entered."""
        call = create_call(question, options, key=idempotency_key, stream=True)
        return self._streaming(call, reconnect, cancel_on_exit)

    def resume(
        self, run_id: str, *, after: int = -1, reconnect: bool = True, cancel_on_exit: bool = False
    ) -> AsyncResearchStream:
        """See ``Research.resume``."""
        call = events_call(run_id, after)
        return self._streaming(call, reconnect, cancel_on_exit, run_id, after)

    async def replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> Run:
        """See ``Research.replay``."""
        return (
            await self.with_raw_response.replay(run, on_miss=on_miss, idempotency_key=idempotency_key, **options)
        ).parse()

    def stream_replay(
        self,
        run: str | Run,
        *,
        on_miss: OnMiss = "fail",
        reconnect: bool = True,
        cancel_on_exit: bool = True,
        idempotency_key: str | None = None,
        **options: Unpack[ReplayOptions],
    ) -> AsyncResearchStream:
        """See ``Research.stream_replay``."""
        call = replay_call(run, options, on_miss=on_miss, key=idempotency_key, stream=True)
        return self._streaming(call, reconnect, cancel_on_exit)

    async def retrieve(self, run_id: str) -> Run:
        """See ``Research.retrieve``."""
        return (await self.with_raw_response.retrieve(run_id)).parse()

    async def cancel(self, run_id: str) -> Run:
        """See ``Research.cancel``."""
        return (await self.with_raw_response.cancel(run_id)).parse()

    async def delete(self, run_id: str) -> RunDeleted:
        """See ``Research.delete``."""
        return (await self.with_raw_response.delete(run_id)).parse()

    async def list(self, *, limit: int = LIST_LIMIT, after: str | None = None) -> RunList:
        """See ``Research.list``."""
        return (await self.with_raw_response.list(limit=limit, after=after)).parse()

    def _streaming(
        self, call: Call[Run], reconnect: bool, cancel_on_exit: bool, run_id: str | None = None, after: int = -1
    ) -> AsyncResearchStream:
        policy = self._transport.config.retry_policy
        state = StreamState(
            call, run_id=run_id, after=after, reconnect=reconnect, cancel_on_exit=cancel_on_exit, retry_policy=policy
        )
        return AsyncResearchStream(self._transport, state)
