"""The folder through which new weights reach the engine: in memory where there is room, else in the run's folder."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.config import TrainConfig

MEMORY = Path("/dev/shm")
"""Folder in memory, which Linux has. Containers give it 64 MB unless they are told otherwise."""

_SPARE_BYTES = 16 * 2**20
"""Room for configuration and tokenizer, and for what other programs have in memory."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def weights_folder(config: TrainConfig, num_bytes: int) -> Iterator[Path]:
    """Give a folder for weights of ``num_bytes``, which is not there yet and is gone afterwards.

    It is in memory if two copies fit there, since new weights are written before the old ones go, and else in
    ``out_dir``. Engines on other machines have no part in this one's memory: for them it is in ``out_dir``, and stays.

    Raises:
        ConfigurationError: there is no room in either.
    """
    needed = 2 * num_bytes + _SPARE_BYTES
    beside = config.out_dir.resolve() / "weights"
    if config.rollout.engine_urls:
        _check(beside.parent, needed)
        yield beside
        return
    room = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    if room >= needed:
        with tempfile.TemporaryDirectory(prefix="searchr1-", dir=MEMORY) as folder:
            yield Path(folder) / "weights"
        return
    _check(beside.parent, needed)
    logger.info(
        "%s has room for %s, and weights on their way to the engine need %s: they go through %s, which takes longer. "
        "In a container, --shm-size gives it more",
        *(MEMORY, _size(room), _size(needed), beside),
    )
    try:
        yield beside
    finally:
        for place in (beside, *beside.parent.glob(f"{beside.name}.*")):
            shutil.rmtree(place, ignore_errors=True)


def _check(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"weights on their way to the engine need {_size(needed)}, and neither {MEMORY} nor {folder}, which has "
            f"{_size(free)}, has room for them: take another out_dir, or give a container more by --shm-size"
        )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.3g} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"
