"""Adapters of models that were trained whole: what their linear layers learned, as far as a low rank holds it.

Of all matrices of rank r the first r singular vectors of a difference are nearest to it (Eckart and Young, 1936). What
training changed outside of the layers, such as embeddings and norms, is left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm

from searchr1.errors import ConfigurationError
from searchr1.trainer.adapters import Adapter, Pair
from searchr1.trainer.rl.sections import LoraSection


def low_rank_adapter(base: Path, tuned: Path, section: LoraSection, *, progress: bool = True) -> tuple[Adapter, float]:
    """Return the adapter that brings the model in ``base`` nearest to that in ``tuned``, and how near.

    The second is the share of the squared difference of the layers in ``section.targets`` that the adapter has, 0 to 1.

    Raises:
        ConfigurationError: one of the folders is no model, they are of different shapes, or nothing differs.
    """
    before, after = _weights(base), _weights(tuned)
    ends = tuple(f".{target}.weight" for target in section.targets)
    names = [name for name in before if name.endswith(ends)]
    if not names or any(name not in after for name in names):
        raise ConfigurationError(f"{tuned} and {base} are not the same model, or have no layer {section.targets[0]}")
    pairs: dict[str, Pair] = {}
    whole = kept = 0.0
    for name in tqdm(names, desc="layers", disable=not progress):
        one, other = before[name].get_tensor(name), after[name].get_tensor(name)
        if one.shape != other.shape:
            raise ConfigurationError(f"{tuned} and {base} are not the same model: {name} has another shape")
        difference = other.float() - one.float()
        u, s, v = torch.linalg.svd(difference, full_matrices=False)
        rank = min(section.rank, len(s))
        roots = (s[:rank] / section.scale).sqrt()
        down, up = torch.zeros(section.rank, one.shape[1]), torch.zeros(one.shape[0], section.rank)
        down[:rank], up[:, :rank] = roots[:, None] * v[:rank], u[:, :rank] * roots
        pairs[name.removesuffix(".weight")] = Pair(down, up)
        whole, kept = whole + float((s**2).sum()), kept + float((s[:rank] ** 2).sum())
    if whole == 0:
        raise ConfigurationError(f"the layers of {tuned} are those of {base}: there is nothing to adapt")
    return Adapter(section, pairs, str(base)), kept / whole


def _weights(folder: Path) -> Mapping[str, Any]:
    """Return, by the name of each weight, the opened file that it is in."""
    files: list[Any] = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
    if not files:
        raise ConfigurationError(
            f"{folder} holds no *.safetensors. Give a model's folder, as Hugging Face lays one out"
        )
    return {name: file for file in files for name in file.keys()}  # noqa: SIM118, it is no mapping
