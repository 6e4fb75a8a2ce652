"""New weights in the served engine: checked before anything stands still, then tried, and taken back if need be."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from searchr1.engines.base import SURVIVABLE_REASONS, Engine, TakesWeights
from searchr1.engines.checkpoint import Checkpoint
from searchr1.engines.probe import probe
from searchr1.errors import ConfigurationError, EngineError, EngineUnavailableError
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.served_model import ServedModel
from searchr1.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_PROBE_TEXT: Final = "The capital of France is"


async def reload_weights(model: ServedModel, folder: Path, version: str) -> None:
    """Have the engine of ``model`` serve the checkpoint in ``folder`` as ``version``; one at a time.

    Raises:
        ApiError: 400 for a folder that does not fit, of which the engine knows nothing; 409 for an engine that takes no
            weights; 500 where the weights did not work and the old ones are back; 503 where the engine is down.
    """
    engine = model.engine
    if not isinstance(engine, TakesWeights):
        message = "The engine runs elsewhere: reload it there. Only a pool, or one that this server started, can be."
        raise ApiError(409, message, code="engine_not_ours")
    async with model.reload_lock:
        served = await asyncio.to_thread(_served_checkpoint, model.served_from)
        await asyncio.to_thread(_check, folder, served, model.tokenizer)
        health = await engine.health()
        if not health.ok and health.reason not in SURVIVABLE_REASONS:
            raise ApiError(503, "The engine is not up: try again when it is.", code="engine_unavailable")
        try:
            await engine.take_weights(folder, version=version)
            await _probe(engine, model.tokenizer)
        except EngineUnavailableError as error:
            logger.error("the engine went down while it took the weights in %s: %s", folder, error)
            message = "The engine went down while it took the weights, and restarts. Its log says why."
            raise ApiError(503, message, code="engine_unavailable") from error
        except EngineError as error:
            logger.error("the weights in %s do not work: %s", folder, error)
            await _take_back(engine, served.folder, model)
            message = "The weights do not work in the engine, and the old ones are back. The server's log says why."
            raise ApiError(500, message, code="reload_rolled_back") from error
        model.policy_version = version
        model.served_from = str(folder)


def _served_checkpoint(served_from: str) -> Checkpoint:
    try:
        return Checkpoint.read(_local_folder(served_from))
    except ConfigurationError as error:
        logger.error("the served checkpoint can't be read, so that none can be compared with it: %s", error)
        message = "The served checkpoint can't be read any more, so nothing can be compared with it: restart instead."
        raise ApiError(409, message, code="reload_impossible") from error


def _local_folder(name: str) -> Path:
    """Return the folder that a folder's path or a hub's name stands for, without asking the hub."""
    if Path(name).is_dir():
        return Path(name)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, local_files_only=True))
    except (ImportError, OSError, ValueError) as error:
        raise ConfigurationError(f"{name} is no folder, and not in the hub's cache") from error


def _check(folder: Path, served: Checkpoint, tokenizer: Tokenizer) -> None:
    try:
        if not folder.is_dir():
            raise ConfigurationError("there is no such folder")
        checkpoint = Checkpoint.read(folder)
        if not Tokenizer.load(str(folder)).same_as(tokenizer):
            raise ConfigurationError("it has another tokenizer than the served model")
        checkpoint.check_replaces(served)
        checkpoint.check_finite()
    except (ConfigurationError, OSError, ValueError) as error:
        # A path may be none at all: too long, with a zero byte, a circle of links.
        reason = str(error) if isinstance(error, ConfigurationError) else "it is no path of a folder"
        message = f"The folder does not hold weights that can be served: {reason}."
        raise invalid(message, param="folder", code="unusable_checkpoint") from error


async def _probe(engine: Engine, tokenizer: Tokenizer) -> None:
    """Raise ``EngineError`` unless the engine says something, greedily, with finite probabilities."""
    prompt_ids = tuple(tokenizer.encode_prompt(tokenizer.render(_PROBE_TEXT)))
    await probe(engine, prompt_ids, num_tokens=4, session="reload-probe", name="the engine")


async def _take_back(engine: TakesWeights, folder: Path, model: ServedModel) -> None:
    try:
        await engine.take_weights(folder, version=model.policy_version)
        await _probe(model.engine, model.tokenizer)
    except EngineError as error:
        logger.error("the weights in %s could not be put back: %s", folder, error)
        message = "Neither the new weights nor the old ones work in the engine: restart it. The server's log says why."
        raise ApiError(503, message, code="reload_failed") from error
