"""A checkpoint folder, looked at before an engine loads it: what is in it, and whether it can stand in for another.

A damaged or foreign file can kill an engine, or leave it with weights that say nothing. Only headers are read to
compare two checkpoints; values are read once, in pieces, to find those that are not finite.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from searchr1.errors import ConfigurationError

_INDEX: Final = "model.safetensors.index.json"
_MAX_JSON_BYTES: Final = 100_000_000
_CHUNK_BYTES: Final = 16 * 2**20
_BITS: Final = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}
_CAST_FREELY: Final = frozenset({"F64", "F32", "F16", "BF16"})
"""Types that an engine turns into its own."""
_NOT_FINITE: Final = {
    "F64": 0x7FF0_0000_0000_0000,
    "F32": 0x7F80_0000,
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F8_E5M2": 0x7C,
    "F8_E4M3": 0x7F,
    "F8_E8M0": 0xFF,
}
"""Bits that are all set in a NaN or an infinity, and in no other value."""
_ARCHITECTURE: Final = (
    "architectures",
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "layer_norm_eps",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "sliding_window",
    "use_sliding_window",
    "max_position_embeddings",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "text_config",
)
"""Fields of ``config.json`` that both must agree on where both have them; versions of a library add fields."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's place in its file, its type and its shape."""

    file: Path
    start: int
    """Its first byte in the file."""
    num_bytes: int
    dtype: str
    """As safetensors names it: ``BF16``."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder of safetensors files and a ``config.json``, whose headers are whole."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """Read a folder's headers. Raises ``ConfigurationError``; its text names files and tensors, nothing inside."""
        try:
            config = _read_object(folder / "config.json")
            return cls(folder, config, dict(_tensors(folder)))
        except OSError as error:
            raise ConfigurationError(
                f"the folder can't be read: {error.strerror or 'a link in it leads nowhere'}"
            ) from error

    @property
    def is_tied(self) -> bool:
        """Whether the output layer is the embedding, and needs no tensor of its own."""
        return self.config.get("tie_word_embeddings") is True

    def check_replaces(self, served: "Checkpoint") -> None:
        """Raise ``ConfigurationError`` unless an engine that serves ``served`` can take these weights instead."""
        for name in _ARCHITECTURE:
            if name in self.config and name in served.config and self.config[name] != served.config[name]:
                raise ConfigurationError(f"config.json has another {name} than the served model")
        if _rope_theta(self.config) != _rope_theta(served.config):
            raise ConfigurationError("config.json has another rope_theta than the served model")
        if self.config.get("quantization_config") != served.config.get("quantization_config"):
            raise ConfigurationError("config.json has another quantization than the served model")
        for name, wanted in served.tensors.items():
            found = self.tensors.get(name)
            if found is None:
                if not self._may_lack(name):
                    raise ConfigurationError(f"the tensor {_shown(name)} is missing")
            elif found.shape != wanted.shape:
                raise ConfigurationError(
                    f"the tensor {_shown(name)} is {_shape(found)}, and {_shape(wanted)} in the served model"
                )
            elif found.dtype != wanted.dtype and not {found.dtype, wanted.dtype} <= _CAST_FREELY:
                raise ConfigurationError(
                    f"the tensor {_shown(name)} is {found.dtype}, and {wanted.dtype} in the served model"
                )
        for name in self.tensors:
            if name not in served.tensors and not self._may_lack(name):
                raise ConfigurationError(f"the tensor {_shown(name)} is not in the served model")

    def check_finite(self) -> None:
        """Raise ``ConfigurationError`` where a value is not finite. Reads every byte: run it in a thread."""
        import numpy as np

        for name, tensor in self.tensors.items():
            bits = _NOT_FINITE.get(tensor.dtype)
            if bits is None:
                continue
            mask = np.dtype(f"<u{_BITS[tensor.dtype] // 8}").type(bits)
            for chunk in _chunks(tensor, name):
                values = np.frombuffer(chunk, mask.dtype)
                if bool(((values & mask) == mask).any()):
                    raise ConfigurationError(f"the tensor {_shown(name)} holds values that are not finite")

    def _may_lack(self, name: str) -> bool:
        return name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and self.is_tied)


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    index = folder / _INDEX
    if index.is_file():
        placed = _read_object(index).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise ConfigurationError(f"{_INDEX} has no weight_map of file names")
        names = sorted(set(placed.values()))
    else:
        placed, names = {}, sorted(file.name for file in folder.glob("*.safetensors"))
    if not names:
        raise ConfigurationError("there is no *.safetensors in it")
    seen: set[str] = set()
    for name in names:
        for tensor_name, tensor in _tensors_of(folder, name).items():
            if tensor_name in seen:
                raise ConfigurationError(f"the tensor {_shown(tensor_name)} is there twice")
            seen.add(tensor_name)
            yield tensor_name, tensor
    for tensor_name in placed:
        if tensor_name not in seen:
            raise ConfigurationError(f"the tensor {_shown(tensor_name)} is in {_INDEX} and in no file")


def _tensors_of(folder: Path, name: str) -> dict[str, Tensor]:
    file = folder / name
    if Path(name).name != name or not name.endswith(".safetensors") or not file.is_file():
        raise ConfigurationError(f"{_shown(name)} is no file in the folder")
    size = file.stat().st_size
    with file.open("rb") as stream:
        num_header_bytes = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= num_header_bytes <= min(size - 8, _MAX_JSON_BYTES):
            raise ConfigurationError(f"{_shown(name)} is no safetensors file, or not whole")
        header = _parse_object(stream.read(num_header_bytes), f"the header of {_shown(name)}")
    header.pop("__metadata__", None)
    data = 8 + num_header_bytes
    tensors = {tensor: _tensor(file, tensor, entry, data) for tensor, entry in header.items()}
    spans = sorted((tensor.start, tensor.start + tensor.num_bytes) for tensor in tensors.values())
    edges = [(0, data), *spans, (size, size)]
    if any(end != start for (_, end), (start, _) in pairwise(edges)):
        raise ConfigurationError(f"{_shown(name)} is not whole: its tensors do not fill it")
    return tensors


def _tensor(file: Path, name: str, entry: Any, data: int) -> Tensor:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        is_sound = (
            all(type(number) is int and number >= 0 for number in (start, end, *shape))
            and 8 * (end - start) == math.prod(shape) * _BITS[dtype]
        )
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigurationError(f"the tensor {_shown(name)} is not described as safetensors does it") from error
    if not is_sound:
        raise ConfigurationError(f"the tensor {_shown(name)} has another size than its shape")
    return Tensor(file, data + start, end - start, dtype, shape)


def _chunks(tensor: Tensor, name: str) -> Iterator[bytes]:
    left = tensor.num_bytes
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if len(chunk) != min(left, _CHUNK_BYTES):
                raise ConfigurationError(f"the tensor {_shown(name)} is not whole")
            left -= len(chunk)
            yield chunk


def _read_object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigurationError(f"there is no {file.name} in it")
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise ConfigurationError(f"{file.name} is too large")
    return _parse_object(file.read_bytes(), file.name)


def _parse_object(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{what} is not JSON") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{what} is not a JSON object")
    return found


def _rope_theta(config: dict[str, Any]) -> Any:
    """Return the base of the positions, where this or another version of the library keeps it."""
    parameters = config.get("rope_parameters")
    kept = parameters.get("rope_theta") if isinstance(parameters, dict) else None
    return config.get("rope_theta", kept)


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "a number"


def _shown(name: str) -> str:
    return repr(name[:200])
