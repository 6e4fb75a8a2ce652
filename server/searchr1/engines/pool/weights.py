"""New weights in the replicas of a pool: one after the other, so that no run is lost, or all at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from searchr1.engines.pool.replica import Replica
from searchr1.engines.probe import probe
from searchr1.errors import EngineError, EngineUnavailableError

_PROBE_IDS: Final = (0, 1, 2)


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
        replica.begin_loading()
        await empty(replica)
        try:
            await replica.client.take_weights(folder, version=version)
        except EngineUnavailableError as error:
            _raise([error])
        except EngineError as error:
            replica.end_loading()  # It offers no way to do this, and has the weights that it had.
            _raise([error])
        try:
            await probe(replica.client, _PROBE_IDS, num_tokens=2, session="weights-probe", name=replica.name)
        except EngineError as error:
            _raise([error])
        replica.end_loading()


def _raise(results: Sequence[BaseException | None]) -> None:
    failures = [error for error in results if error is not None]
    for error in failures:
        if not isinstance(error, EngineError):
            raise error
    if failures:
        raise EngineError(f"new weights did not reach every replica: {'; '.join(map(str, failures))}") from failures[0]
