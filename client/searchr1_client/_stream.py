"""Streaming runs: typed events, the answer's text and the whole run, over one connection or several."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self

import httpx

from searchr1_client._errors import APIConnectionError, APIStatusError
from searchr1_client._request import retrieve_call
from searchr1_client._stream_state import Loss, StreamState
from searchr1_client._transport import AsyncTransport, SyncTransport
from searchr1_client.events import AnswerDelta, KnownEvent, Run, UnknownEvent


class _Stream:
    """The part that both streams share."""

    def __init__(self, state: StreamState) -> None:
        self._state = state
        self._response: httpx.Response | None = None
        self._left = False

    @property
    def run_id(self) -> str | None:
        """The run's id, from the stream's start on."""
        return self._state.run_id

    @property
    def response(self) -> httpx.Response:
        """The latest HTTP response: its status and headers. Its body is the stream's to read."""
        if self._response is None:
            raise RuntimeError("the stream has no response before its context is entered")
        return self._response

    def _check(self) -> None:
        self._state.check()
        if self._response is None or self._left:
            raise RuntimeError("read the stream inside its context: with client.research.stream(question) as stream")


class ResearchStream(_Stream):
    """A streaming run. Entering it sends the request; iterating over it yields the events, up to the terminal one.

    A lost connection is made again and the stream taken up where it broke, without gaps or repeats. Leaving the
    context before the run's end cancels the run on the server, unless ``cancel_on_exit`` is false.

    Raises, while it is read:
        StreamEndedError: the run could not be followed to its end.
        StreamFormatError: something on the stream is not an event.
    """

    def __init__(self, transport: SyncTransport, state: StreamState) -> None:
        super().__init__(state)
        self._transport = transport
        self._chunks: Iterator[bytes] | None = None

    def __enter__(self) -> Self:
        self._open(max_retries=None)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
        try:
            if (call := self._state.parting_call()) is not None:
                self._transport.best_effort(call)
        finally:
            self.response.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> KnownEvent | UnknownEvent:
        while not self._state.ready:
            if self._state.finished:
                raise StopIteration
            self._check()
            self._pull()
        return self._state.ready.popleft()

    @property
    def text_stream(self) -> Generator[str, None, None]:
        """Yield the answer's text as it streams; other events are passed over.

        Text of a turn that turns out not to be an answer is void: what counts is ``get_final_run().answer``.
        """
        for event in self:
            if isinstance(event, AnswerDelta):
                yield event.text

    def get_final_run(self) -> Run:
        """Read to the run's end and return the whole run; a resumed one is asked of the server."""
        for _ in self:
            pass
        run = self._state.final_run()
        if run is None:
            assert self.run_id is not None
            run = self._transport.call(retrieve_call(self.run_id)).parse()
        return run

    def _open(self, max_retries: int | None) -> None:
        response = self._transport.send(self._state.next_call(), stream=True, max_retries=max_retries)
        try:
            self._state.opened(response)
        except BaseException:
            response.close()
            raise
        self._response, self._chunks = response, response.iter_bytes()

    def _pull(self) -> None:
        assert self._chunks is not None
        try:
            self._state.feed(next(self._chunks))
        except StopIteration:
            self._take_up(None)
        except (httpx.RequestError, httpx.StreamError) as error:
            self._take_up(error)

    def _take_up(self, loss: Loss) -> None:
        self.response.close()
        while True:
            time.sleep(self._state.lost(loss))
            try:
                return self._open(max_retries=0)
            except (APIConnectionError, APIStatusError) as error:
                loss = error


class AsyncResearchStream(_Stream):
    """The asyncio twin of ``ResearchStream``.

    When its task is cancelled, the run still is too, though nobody waits for that.
    """

    def __init__(self, transport: AsyncTransport, state: StreamState) -> None:
        super().__init__(state)
        self._transport = transport
        self._chunks: AsyncIterator[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self._open(max_retries=None)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left = True
        await self._transport.to_end(self._leave())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KnownEvent | UnknownEvent:
        while not self._state.ready:
            if self._state.finished:
                raise StopAsyncIteration
            self._check()
            await self._pull()
        return self._state.ready.popleft()

    @property
    async def text_stream(self) -> AsyncGenerator[str, None]:
        """See ``ResearchStream.text_stream``."""
        async for event in self:
            if isinstance(event, AnswerDelta):
                yield event.text

    async def get_final_run(self) -> Run:
        """See ``ResearchStream.get_final_run``."""
        async for _ in self:
            pass
        run = self._state.final_run()
        if run is None:
            assert self.run_id is not None
            run = (await self._transport.call(retrieve_call(self.run_id))).parse()
        return run

    async def _leave(self) -> None:
        try:
            if (call := self._state.parting_call()) is not None:
                await self._transport.best_effort(call)
        finally:
            await self.response.aclose()

    async def _open(self, max_retries: int | None) -> None:
        response = await self._transport.send(self._state.next_call(), stream=True, max_retries=max_retries)
        try:
            self._state.opened(response)
        except BaseException:
            await response.aclose()
            raise
        self._response, self._chunks = response, response.aiter_bytes()

    async def _pull(self) -> None:
        assert self._chunks is not None
        try:
            self._state.feed(await anext(self._chunks))
        except StopAsyncIteration:
            await self._take_up(None)
        except (httpx.RequestError, httpx.StreamError) as error:
            await self._take_up(error)

    async def _take_up(self, loss: Loss) -> None:
        await self.response.aclose()
        while True:
            await asyncio.sleep(self._state.lost(loss))
            try:
                return await self._open(max_retries=0)
            except (APIConnectionError, APIStatusError) as error:
                loss = error
