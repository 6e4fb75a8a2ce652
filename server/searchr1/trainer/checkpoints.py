"""Checkpoints that can be served, and the state that a training run resumes from.

Both are replaced whole or not at all, so that a run that is killed at any moment finds its last ones intact, and
neither takes the place of a sound one with numbers that are not finite.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from searchr1.errors import ConfigurationError, TrainingError
from searchr1.files import whole_file
from searchr1.hf_hub import HubRefusedError, snapshot

STATE = "state.pt"
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.part")


def find_model(name: str) -> Path:
    """Return the folder of a model: ``name`` itself, or the hub's model of that name, from its cache if it is there.

    Raises:
        ConfigurationError: there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if name.count("/") > 1 or name.startswith(("/", ".", "~")):  # The hub's are NAME or OWNER/NAME.
        raise ConfigurationError(f"{name}: no such folder. `searchr1 train warmup` writes one: docs/guides/training.md")
    try:
        return snapshot(name, library_name="searchr1")
    except HubRefusedError as error:
        raise ConfigurationError(f"{name} is no folder here, and the hub does not give it: {error}") from error


def read_model(folder: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    """Return the language model in a folder, with weights of type ``dtype``, on the CPU.

    Raises:
        ConfigurationError: there is no such model.
    """
    try:
        with quietly():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"there is no model in {folder}: {error}") from error
    return model


def dtype_of(folder: Path) -> torch.dtype:
    """Return the type of the weights in a model's folder: float32 if its configuration says so, else bfloat16."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    name = config.get("dtype", config.get("torch_dtype"))
    return torch.float32 if name == "float32" else torch.bfloat16


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers from showing its bars, and its report of weights that are left out on purpose."""
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def write_checkpoint(
    model: PreTrainedModel,
    source: Path,
    folder: Path,
    *,
    dtype: torch.dtype,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write ``model`` to ``folder`` in Hugging Face layout; ``searchr1 serve --model`` takes it as it is.

    ``weights`` are the model's by name where it does not hold them whole itself. Tokenizer, chat template and whatever
    else lies in ``source``, the folder that the model started from, come along.

    Raises:
        TrainingError: a weight is not finite; what lies in ``folder`` stays.
        ConfigurationError: it can't be written, for a full disk say; what lies in ``folder`` stays.
    """
    weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in (weights or model.state_dict()).items()}
    check_finite(weights, f"{folder} is not written")
    part, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("part", "old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part, ignore=shutil.ignore_patterns(*_WEIGHTS))
        with quietly():
            model.save_pretrained(part, state_dict=weights)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise ConfigurationError(f"{folder} cannot be written: {error}") from error
    shutil.rmtree(old, ignore_errors=True)


def check_finite(values: Any, refused: str) -> None:
    """Check all numbers in tensors, and in dictionaries and lists of them, however deep.

    Raises:
        TrainingError: one is not finite; the message begins with what is ``refused`` and names the tensor.
    """
    for name, tensor in _tensors(values, ""):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TrainingError(f"{refused}: {name} holds numbers that are not finite")


def _tensors(values: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(values, torch.Tensor):
        yield name, values
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(values, Mapping):
        inner = values.items()
    elif isinstance(values, list | tuple):
        inner = enumerate(values)
    for key, value in inner:
        yield from _tensors(value, f"{name}.{key}" if name else str(key))


def save_state(out_dir: Path, state: dict[str, Any]) -> None:
    """Write the state that a run resumes from; its ``identity`` says of which run.

    Raises:
        TrainingError: a number in it is not finite; the state that is there stays.
        ConfigurationError: it can't be written; the state that is there stays.
    """
    path = out_dir / STATE
    check_finite(state, f"{path} is not written")
    with whole_file(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # Torch ends its archive even where it could not be written, and then tells of the end alone.
            if (refusal := _refusal(error)) is None:
                raise
            raise ConfigurationError(f"{path} cannot be written: {refusal.strerror}") from error


def _refusal(error: BaseException | None) -> OSError | None:
    """Return the error of a disk that led to ``error``."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load_state(out_dir: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Return the state that ``save_state`` wrote last; None at the start of a run.

    Raises:
        ConfigurationError: the folder holds a run with another ``identity``; the message names what differs.
    """
    path = out_dir / STATE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    saved = state.get("identity", state.get("config", {}))  # Warm-ups of earlier versions wrote "config".
    differing = sorted(name for name in identity.keys() | saved.keys() if identity.get(name) != saved.get(name))
    if differing:
        raise ConfigurationError(
            f"{out_dir} holds a run with other settings ({', '.join(differing)}); use another out_dir"
        )
    return state
