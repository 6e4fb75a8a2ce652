"""Folders and files that a training run leaves: servable checkpoints, and the state that it resumes from.

Both are replaced whole or not at all, so that a run that is killed at any moment finds its last ones intact.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from searchr1.errors import ConfigurationError

STATE = "state.pt"
_WEIGHTS = ("*.safetensors", "*.bin", "*.index.json", "*.part")


def write_checkpoint(model: PreTrainedModel, source: Path, folder: Path, *, dtype: torch.dtype) -> None:
    """Write ``model`` to ``folder`` in Hugging Face layout, ``searchr1 serve --model`` takes it as it is.

    Tokenizer, chat template and whatever else lies in ``source``, the folder that the model started from, come along.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns(*_WEIGHTS))
    weights = {name: tensor.detach().to("cpu", dtype) for name, tensor in model.state_dict().items()}
    model.save_pretrained(part, state_dict=weights)
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_state(out_dir: Path, state: dict[str, Any]) -> None:
    """Write what a run resumes from."""
    part = out_dir / f"{STATE}.part"
    torch.save(state, part)
    part.replace(out_dir / STATE)


def load_state(out_dir: Path, identity: dict[str, Any], device: torch.device) -> dict[str, Any] | None:
    """What ``save_state`` wrote last; None at the start of a run.

    Raises:
        ConfigurationError: the folder holds a run with another ``identity``; the message names what differs.
    """
    path = out_dir / STATE
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    differing = sorted(
        name for name in identity.keys() | state["identity"].keys() if identity.get(name) != state["identity"].get(name)
    )
    if differing:
        raise ConfigurationError(f"{out_dir} holds a run with other settings ({', '.join(differing)}); use another one")
    return state
