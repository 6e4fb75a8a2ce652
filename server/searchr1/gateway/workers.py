"""Workers: several processes that serve one port, started, watched and ended by the one that the operator started.

* Each worker listens on a socket of its own (``SO_REUSEPORT``), over which the kernel spreads connections evenly. With
  one socket for all, a burst of connections goes to whichever worker wakes first.
* The first worker starts alone, so that what it downloads or builds is there for the others; probes get its answers
  meanwhile. Every other one listens once it can serve.
* A worker that dies is started again, later each time while it dies soon after its start. One that cannot start as the
  server starts ends the start with its error.
* Signals are passed on, and the supervisor ends when all workers have. Workers whose supervisor is gone end in good
  order by themselves.
"""

import asyncio
import logging
import multiprocessing
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final, Protocol, cast

from prometheus_client.multiprocess import mark_process_dead
from pydantic import SecretStr

from searchr1.errors import ConfigurationError, SearchR1Error
from searchr1.gateway.metrics import SHARED_METRICS
from searchr1.gateway.ops_port import ops_host
from searchr1.settings import Settings
from searchr1.sockets import bind_shared

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LAST_RESORT_S: Final = 30.0
"""Seconds beyond all phases of an orderly end after which a worker is killed."""
_LONG_LIFE_S: Final = 60.0
"""After so many seconds of a worker's life its end is no sign that the next one ends soon."""
_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told as it starts; it is pickled."""

    settings: Settings
    number: int
    """From 1; the first one listens before it can serve."""
    gateway: str
    """Name of the gateway that the workers are together."""
    reports: Connection
    """Takes one ``Report`` of the start."""

    @property
    def name(self) -> str:
        """The worker's name in the log."""
        return f"worker {self.number}"

    @property
    def is_first(self) -> bool:
        """Whether it listens before it can serve."""
        return self.number == 1

    def opened(self) -> None:
        """Report that the worker serves."""
        self.reports.send(Report())

    def failed(self, error: SearchR1Error) -> None:
        """Report why it does not start."""
        self.reports.send(Report(str(error), is_configuration=isinstance(error, ConfigurationError)))


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a worker's start."""

    fault: str | None = None
    is_configuration: bool = field(default=False, kw_only=True)


Work = Callable[[Assignment], None]
"""Serves until a signal; a function of a module, since a new process must find it."""


def supervise(settings: Settings, work: Work) -> None:
    """Run ``settings.workers`` processes of ``work`` until a signal has ended all of them.

    Raises:
        SearchR1Error: the port is taken, or a worker does not start.
    """
    with (
        bind_shared(settings.host, settings.port) as (host, port),
        _shared_ops_port(settings) as ops_port,
        _shared_metrics() as folder,
    ):
        settings = settings.model_copy(update={"port": port, "ops_port": ops_port})
        asyncio.run(_Supervisor(settings, work, metrics_folder=folder, url=_url(host, port)).run())


def part_of(settings: Settings) -> Settings:
    """Return the settings of one worker: of every bound that the process itself counts, its part.

    Runs are not divided here: workers balance them (``scheduling/shares.py``).
    """
    number = settings.workers
    rate_per_s = settings.search_rate_per_s
    secret = settings.engine_session_secret or SecretStr(secrets.token_hex(32))
    return settings.model_copy(
        update={
            "max_connections": -(-settings.max_connections // number),
            "max_queued_runs": -(-settings.max_queued_runs // number),
            "search_max_concurrent": max(1, settings.search_max_concurrent // number),
            "search_rate_per_s": None if rate_per_s is None else rate_per_s / number,
            # All workers must call a tenant by the same name, or they share none of its cached prefixes.
            "engine_session_secret": secret,
        }
    )


def follow_supervisor(settings: Settings) -> None:
    """Have this worker end in good order once its supervisor is gone, and in any case soon after."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None, "a worker has a supervisor"

    def watch() -> None:
        supervisor.join()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_longest_end_s(settings))
        os._exit(1)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


class _Worker:
    """One worker process, from its start to its end."""

    def __init__(self, settings: Settings, number: int, gateway: str, work: Work) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._reports, reports = spawning.Pipe(duplex=False)
        self.number, self.started_s = number, time.monotonic()
        assignment = Assignment(settings, number, gateway, reports)
        self._process: SpawnProcess = spawning.Process(target=work, args=(assignment,), name=assignment.name)
        # They wait until the worker can take them: during its imports they would end it without a word.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            reports.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    @property
    def lived_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started_s

    async def opened(self) -> None:
        """Return once it serves. Raises ``SearchR1Error`` where it does not start."""
        try:
            await _readable(self._reports)
            report: Report = self._reports.recv()
        except EOFError:
            raise SearchR1Error(f"worker {self.number} ended while it started; the log says why") from None
        finally:
            self._reports.close()
        if report.fault is not None:
            raise (ConfigurationError if report.is_configuration else SearchR1Error)(report.fault)

    async def ended(self) -> str:
        """Return how it ended, once it has."""
        await _readable(self._process.sentinel)
        await asyncio.to_thread(self._process.join)
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self._process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class _Supervisor:
    """The process that the operator started: it serves nothing itself."""

    def __init__(self, settings: Settings, work: Work, *, metrics_folder: str, url: str) -> None:
        self._settings, self._work, self._url = settings, work, url
        self._part, self._gateway = part_of(settings), secrets.token_hex(8)
        self._metrics_folder = metrics_folder
        self._workers: dict[int, _Worker] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Start all workers and keep them running until a signal. Raises ``SearchR1Error`` where one does not start."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        try:
            if not await self._has_started():
                return
            logger.info(
                "Serving %s at %s with %d workers", self._settings.public_name, self._url, self._settings.workers
            )
            await asyncio.gather(*map(self._keep, list(self._workers)))
        finally:
            if not self._stopping.is_set():  # A second signal would cut off what is being drained.
                self._stop(signal.SIGTERM)
            await asyncio.gather(*(worker.ended() for worker in self._workers.values()))

    async def _has_started(self) -> bool:
        """Start the first worker, then the others; return False where a signal came first."""
        numbers = range(1, self._settings.workers + 1)
        try:
            for together in (numbers[:1], numbers[1:]):
                started = [self._start(number) for number in together]
                await asyncio.gather(*(worker.opened() for worker in started))
                if self._stopping.is_set():
                    return False
        except SearchR1Error:
            if not self._stopping.is_set():
                raise
            return False
        return True

    def _start(self, number: int) -> _Worker:
        worker = self._workers[number] = _Worker(self._part, number, self._gateway, self._work)
        return worker

    async def _keep(self, number: int) -> None:
        """Start a worker again whenever it has ended, until the server stops."""
        num_short_lives = 0
        while True:
            worker = self._workers[number]
            how = await worker.ended()
            cast(Any, mark_process_dead)(worker.pid, self._metrics_folder)
            num_short_lives = 0 if worker.lived_s >= _LONG_LIFE_S else num_short_lives + 1
            delay_s = delay_before(num_short_lives)
            if self._stopping.is_set():
                return
            logger.error("worker %d ended (%s); it is started again in %g s", number, how, delay_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            if self._stopping.is_set():
                return
            try:
                await self._start(number).opened()
                logger.info("worker %d serves again", number)
            except (SearchR1Error, OSError) as error:  # The machine may lack processes or files for a moment.
                logger.error("worker %d does not start: %s", number, error)

    def _stop(self, number: int) -> None:
        """Pass a signal on to the workers, and see to it that they end."""
        if not self._stopping.is_set():
            self._stopping.set()
            asyncio.get_running_loop().call_later(_longest_end_s(self._settings), self._kill)
        for worker in self._workers.values():
            worker.send(number)

    def _kill(self) -> None:
        for worker in self._workers.values():
            worker.send(signal.SIGKILL)


def delay_before(num_short_lives: int) -> float:
    """Return the seconds before a worker's next start, after so many lives in a row that were short."""
    return min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(num_short_lives, 10))


def _longest_end_s(settings: Settings) -> float:
    # Runs that need no reader have the grace a second time (``RunHub``).
    return settings.drain_s + 2 * settings.shutdown_grace_s + _LAST_RESORT_S


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


async def _readable(file: int | _HasFileno) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(file)


@contextmanager
def _shared_ops_port(settings: Settings) -> Iterator[int | None]:
    """Keep the operators' port for all workers: whichever is asked, its metrics are all workers' sums."""
    if settings.ops_port is None:
        yield None
        return
    with bind_shared(ops_host(settings), settings.ops_port) as (host, port):
        logger.info("Operators are served at %s", _url(host, port))
        yield port


@contextmanager
def _shared_metrics() -> Iterator[str]:
    """Give the folder in which workers count together; they find it in their environment."""
    before = os.environ.get(SHARED_METRICS)
    with tempfile.TemporaryDirectory(prefix="searchr1-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[SHARED_METRICS] = folder
        try:
            yield folder
        finally:
            if before is None:
                del os.environ[SHARED_METRICS]
            else:
                os.environ[SHARED_METRICS] = before


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
