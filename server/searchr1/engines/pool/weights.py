"""New weights in the replicas of a pool: one after the other, so that no run is lost, or all at once."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from searchr1.engines.base import SamplingParams
from searchr1.engines.pool.replica import Replica
from searchr1.errors import EngineError, EngineUnavailableError

_PROBE_S: Final = 60.0
_PROBE: Final = SamplingParams(max_tokens=2, temperature=0.0, logprobs=True)


async def load_at_once(replicas: Sequence[Replica], folder: Path, version: str) -> None:
    """Replace all replicas' weights at once: completions that run stand still meanwhile, and go on with the new ones.

    Raises:
        EngineError: some did not take them; the message says which, and why.
    """
    loading = (replica.client.take_weights(folder, version=version) for replica in replicas)
    _raise(await asyncio.gather(*loading, return_exceptions=True))


async def roll_over(
    replicas: Sequence[Replica],
    folder: Path,
    version: str,
    *,
    empty: Callable[[Replica], Awaitable[None]],
) -> None:
    """Replace the weights of one replica after the other: drain, load, probe, admit.

    ``empty`` returns when nothing runs on a replica any more. While it rolls, runs may go on with other weights than
    they began with.

    Raises:
        EngineError: a replica did not take them. It takes no sessions until it has taken others: its weights may be
            half replaced. Those before it have the new ones, those after it the old ones.
    """
    for replica in replicas:
        replica.drain()
        await empty(replica)
        try:
            await replica.client.take_weights(folder, version=version)
        except EngineUnavailableError as error:
            _raise([error])
        except EngineError as error:
            replica.admit()  # It offers no way to do this, and has the weights that it had.
            _raise([error])
        try:
            await _probe(replica)
        except EngineError as error:
            _raise([error])
        replica.admit()


async def _probe(replica: Replica) -> None:
    """Raise ``EngineError`` unless the replica says something, with finite probabilities."""
    num_ids = 0
    try:
        async with (
            asyncio.timeout(_PROBE_S),
            aclosing(replica.client.generate((0, 1, 2), _PROBE, session="weights-probe")) as chunks,
        ):
            async for chunk in chunks:
                num_ids += len(chunk.token_ids)
                if not all(map(math.isfinite, chunk.logprobs or ())):
                    raise EngineError(f"{replica.name} samples from probabilities that are no numbers")
    except TimeoutError as error:
        raise EngineError(f"{replica.name} says nothing within {_PROBE_S:g} s") from error
    if not num_ids:
        raise EngineError(f"{replica.name} says nothing")


def _raise(results: Sequence[BaseException | None]) -> None:
    failures = [error for error in results if error is not None]
    for error in failures:
        if not isinstance(error, EngineError):
            raise error
    if failures:
        raise EngineError(f"new weights did not reach every replica: {'; '.join(map(str, failures))}") from failures[0]
