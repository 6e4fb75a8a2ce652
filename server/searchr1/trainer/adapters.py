"""Adapters on their own: folders that hold only what LoRA learned, and their sum with the weights they were trained on.

A folder is laid out as PEFT lays one out (``adapter_config.json``, ``adapter_model.safetensors``), so that PEFT and
vLLM read it too. ``rl/lora.py`` trains them, and keeps them in a run's ``state.pt``.

Shapes: r rank, I and O a linear layer's inputs and outputs.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from searchr1.errors import ConfigurationError
from searchr1.files import first_problem, whole_folder
from searchr1.trainer.checkpoints import STATE
from searchr1.trainer.rl.sections import LoraSection

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""What PEFT puts before the names of a causal model's layers."""
_NAMES = {".lora_down": ".lora_A.weight", ".lora_up": ".lora_B.weight"}
"""The endings of ``rl/lora.py``, and those of PEFT."""
_OF_RUN = "model."
"""What a run's state has before the names of the policy's layers."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two matrices of one layer: ``down`` [r, I] and ``up`` [O, r]."""

    down: torch.Tensor
    up: torch.Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """What LoRA learned: the matrices of each layer, by the name of the layer's weight without ``.weight``."""

    section: LoraSection
    pairs: Mapping[str, Pair]
    base: str
    """The model that it was trained on, as the run named it."""


class _PeftConfig(BaseModel):
    """The fields of ``adapter_config.json`` that a sum of weights depends on."""

    model_config = ConfigDict(extra="ignore")

    peft_type: str
    r: int
    lora_alpha: float
    target_modules: list[str] | str
    base_model_name_or_path: str | None = None
    use_dora: bool = False
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None

    def check(self) -> None:
        """Raise ``ValueError`` where the sum is not ``alpha / r`` times a product in every layer."""
        if self.peft_type != "LORA":
            raise ValueError(f"its type is {self.peft_type}, not LORA")
        others = ("use_dora", "use_rslora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")
        used = [name for name in others if getattr(self, name)] + (["bias"] if self.bias != "none" else [])
        if used:
            raise ValueError(f"{', '.join(used)}: no plain LoRA")


def adapter_of_run(out_dir: Path) -> Adapter:
    """Return the adapter that the training run in ``out_dir`` saved last.

    Raises:
        ConfigurationError: there is no saved run with ``lora``.
    """
    path = out_dir / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror or error}") from error
    identity = state.get("identity", {})
    if not identity.get("lora"):
        raise ConfigurationError(f"{out_dir} holds a run without lora: its weights are whole, in checkpoint/")
    matrices = {name.removeprefix(_OF_RUN): tensor for name, tensor in state["policy"].items()}
    return Adapter(LoraSection.model_validate(identity["lora"]), _pairs(matrices, _NAMES), identity["model"])


def write_adapter(
    adapter: Adapter, folder: Path, *, dtype: torch.dtype = torch.bfloat16, overwrite: bool = False
) -> int:
    """Write ``adapter`` to ``folder``, its matrices as ``dtype``, and return the bytes of its weights.

    Raises:
        ConfigurationError: the folder is there and may not be replaced, or the disk refuses.
    """
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": adapter.section.rank,
        "lora_alpha": adapter.section.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(adapter.section.targets),
        "inference_mode": True,
    }
    ends = list(_NAMES.values())
    tensors = {
        f"{_PREFIX}{layer}{end}": matrix.to(dtype).contiguous()
        for layer, pair in sorted(adapter.pairs.items())
        for end, matrix in zip(ends, (pair.down, pair.up), strict=True)
    }
    with _new_folder(folder, CONFIG, overwrite=overwrite) as part:
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        return (part / WEIGHTS).stat().st_size


def read_adapter(folder: Path) -> Adapter:
    """Return the adapter in ``folder``, which PEFT or ``write_adapter`` wrote.

    Raises:
        ConfigurationError: there is none, or it is no plain LoRA of linear layers.
    """
    try:
        config = _PeftConfig.model_validate_json((folder / CONFIG).read_bytes())
        config.check()
        tensors = load_file(folder / WEIGHTS)
    except ValidationError as error:
        raise ConfigurationError(f"{folder / CONFIG}: {first_problem(error)}") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigurationError(f"{folder} can't be read as a LoRA adapter: {error}") from error
    targets = [config.target_modules] if isinstance(config.target_modules, str) else config.target_modules
    section = LoraSection(rank=config.r, alpha=config.lora_alpha, targets=tuple(targets))
    matrices = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    try:
        pairs = _pairs(matrices, {end: end for end in _NAMES.values()})
    except ConfigurationError as error:
        raise ConfigurationError(f"{folder / WEIGHTS}: {error}") from error
    return Adapter(section, pairs, config.base_model_name_or_path or "")


def merge(base: Path, adapters: Sequence[Adapter], out: Path, *, overwrite: bool = False) -> None:
    """Write to ``out`` the model in ``base`` with ``adapters`` added to its weights, one after the other.

    Each sum is rounded to the type that the weights have, as it was when the next adapter was trained on it. Whatever
    else lies in ``base`` comes along.

    Raises:
        ConfigurationError: ``base`` has no weights as safetensors, an adapter is not of its layers, ``out`` is there
            and may not be replaced, or the disk refuses.
    """
    files = sorted(base.glob("*.safetensors"))
    if not files:
        raise ConfigurationError(f"{base} holds no *.safetensors. Give a model's folder, as Hugging Face lays one out")
    missing = {layer for adapter in adapters for layer in adapter.pairs}
    with _new_folder(out, "config.json", overwrite=overwrite) as part:
        shutil.copytree(base, part, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
        for file in files:
            with safe_open(file, framework="pt") as opened:
                weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is no mapping
            for name in weights:
                layer = name.removesuffix(".weight")
                if layer in missing:
                    missing.discard(layer)
                    weights[name] = _added(weights[name], layer, adapters)
            save_file(weights, part / file.name, metadata={"format": "pt"})
        if missing:
            raise ConfigurationError(f"the adapter is not of the model in {base}, which has no {min(missing)}.weight")


def _added(weight: torch.Tensor, layer: str, adapters: Sequence[Adapter]) -> torch.Tensor:
    """Return ``weight`` [O, I] with what ``adapters`` learned for ``layer``."""
    for adapter in adapters:
        if (pair := adapter.pairs.get(layer)) is None:
            continue
        if weight.shape != (pair.up.shape[0], pair.down.shape[1]):
            raise ConfigurationError(
                f"the adapter is not of this model: {layer} maps {pair.down.shape[1]} to {pair.up.shape[0]} in one, "
                f"{weight.shape[1]} to {weight.shape[0]} in the other"
            )
        product = pair.up.float() @ pair.down.float()
        weight = (weight.float() + adapter.section.scale * product).to(weight.dtype)
    return weight


def _pairs(matrices: Mapping[str, torch.Tensor], names: Mapping[str, str]) -> dict[str, Pair]:
    """Return the pairs that ``matrices`` are, whose names end in the keys of ``names``: down, then up."""
    down, up = names
    layers = {name.removesuffix(down) for name in matrices if name.endswith(down)}
    expected = {layer + end for layer in layers for end in (down, up)}
    if not layers or expected != matrices.keys():
        odd = min(expected ^ matrices.keys(), default="nothing")
        raise ConfigurationError(f"the matrices are no pairs of LoRA's: {odd}")
    return {layer: Pair(matrices[layer + down], matrices[layer + up]) for layer in sorted(layers)}


@contextmanager
def _new_folder(folder: Path, mark: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield a folder to fill that becomes ``folder``; what is there is replaced where it holds the file ``mark``."""
    if folder.exists():
        if not (folder / mark).is_file():
            raise ConfigurationError(f"{folder} exists and holds no {mark}; choose another path")
        if not overwrite:
            raise ConfigurationError(f"{folder} exists. Give --overwrite to replace it, or choose another path")
    try:
        with whole_folder(folder) as part:
            yield part
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror or error}") from error
