"""The faults, each done once a third of the runs has ended."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtests.faults.stack import Stack
from tests.engines.vllm.fake_vllm import Fault

Break = Callable[[Stack], Awaitable[None]]
_RESTART_S = 3.0
_REFUSALS = (Fault.REFUSE_BROKEN, Fault.REFUSE_RATE, Fault.REFUSE_BUSY)


@dataclass(frozen=True)
class Scenario:
    """A fault: one that comes at a moment, one of every tenth call of the engines, or none."""

    name: str
    at_once: Break | None = None
    of_calls: tuple[Fault, ...] = ()
    num_engines: int = 2
    num_gateways: int = 2


async def _kill_engine(stack: Stack) -> None:
    await asyncio.to_thread(next(iter(stack.engines.values())).kill)


async def _restart_engine(stack: Stack) -> None:
    engine = next(iter(stack.engines.values()))
    await asyncio.to_thread(engine.kill)
    await asyncio.sleep(_RESTART_S)
    await asyncio.to_thread(engine.start)


async def _stop_engine(stack: Stack) -> None:
    next(iter(stack.engines.values())).send(signal.SIGSTOP)


async def _drain_engine(stack: Stack) -> None:
    stack.drain(next(iter(stack.engines)))


async def _kill_gateway(stack: Stack) -> None:
    await asyncio.to_thread(next(iter(stack.gateways.values())).kill)


async def _end_gateway(stack: Stack) -> None:
    next(iter(stack.gateways.values())).send(signal.SIGTERM)


SCENARIOS = (
    Scenario("none"),
    Scenario("one of two engines: kill -9", _kill_engine),
    Scenario("one of two engines: SIGSTOP", _stop_engine),
    Scenario("one of two engines: drained", _drain_engine),
    Scenario(f"the only engine: kill -9, back after {_RESTART_S:g} s", _restart_engine, num_engines=1, num_gateways=1),
    Scenario("10 % of calls: connection reset", of_calls=(Fault.DROP,)),
    Scenario("10 % of calls: truncated stream", of_calls=(Fault.UNFINISHED,)),
    Scenario("10 % of calls: error in the stream", of_calls=(Fault.ERROR_IN_STREAM,)),
    Scenario(
        "10 % of calls: 500, 429, 503 in turn", of_calls=(Fault.REFUSE_BROKEN, Fault.REFUSE_RATE, Fault.REFUSE_BUSY)
    ),
    Scenario("10 % of calls: 1 byte/s", of_calls=(Fault.DRIP,)),
    Scenario("10 % of calls: silence in mid-stream", of_calls=(Fault.STALL,)),
    Scenario("one of two gateways: SIGTERM", _end_gateway),
    Scenario("one of two gateways: kill -9", _kill_gateway),
)
"""In the order of the table."""
