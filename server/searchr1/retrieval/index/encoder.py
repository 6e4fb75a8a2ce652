"""Encoders of texts as unit vectors: the ``Encoder`` protocol, and models of the E5 and MiniLM kind in ONNX Runtime."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from searchr1.errors import ConfigurationError, missing_package
from searchr1.retrieval.registry import ProviderSpec
from searchr1.retrieval.text import clean_text

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

Pooling = Literal["mean", "cls"]
SETTINGS = "encoder.json"
_MODELS = ("model.onnx", "onnx/model.onnx")
_BATCH = 32
"""Texts of one forward pass; they are sorted by length, so that padding stays small."""


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Use of a model: prefixes, pooling, length. The defaults are those of E5; MiniLM has empty prefixes."""

    query_prefix: str = "query: "
    passage_prefix: str = "passage: "
    pooling: Pooling = "mean"
    """The text's vector: the mean of the tokens' states, or the first token's."""
    max_tokens: int = 512
    """Tokens of one text, special ones included; the rest of it is ignored."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Identity of an encoder: vectors of two whose infos differ cannot be compared."""

    model: str
    """SHA-256 of the model and its tokenizer."""
    dimension: int
    settings: EncoderSettings


class Encoder(Protocol):
    """A maker of vectors of length 1, whose inner product says how near two texts are. Safe in threads."""

    @property
    def info(self) -> EncoderInfo:
        """The identity of this encoder."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> "Vectors":
        """Return float32 vectors of shape (number of texts, dimension)."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> "Vectors":
        """Return float32 vectors of shape (number of texts, dimension)."""
        ...


class HuggingFaceEncoder:
    """A folder as the Hugging Face Hub has it: ``model.onnx`` (or ``onnx/model.onnx``) and ``tokenizer.json``.

    ``settings`` default to the folder's ``encoder.json`` if there is one, else to E5's. A forward pass uses one thread.
    Raises ``ConfigurationError``, naming what is missing, for a folder that cannot be used. Reading the model takes
    seconds: open it off the event loop.
    """

    def __init__(self, path: Path, settings: EncoderSettings | None = None) -> None:
        # Imported here, because most servers need neither.
        try:
            import onnxruntime  # type: ignore[import-untyped]
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigurationError(missing_package("an encoder", error.name or "onnxruntime", "dense")) from error

        model, tokenizer = _files(path)
        settings = settings or _load_settings(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._tokenizer: Any = Tokenizer.from_file(str(tokenizer))
        # Both libraries raise what their native code names, under no common class.
        except Exception as error:
            raise ConfigurationError(f"the encoder {path} cannot be loaded: {error}") from error
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._settings = settings
        self._set_up_tokenizer()
        dimension = self._forward([""]).shape[1]
        self._info = EncoderInfo(_checksum(*sorted(model.parent.glob("model.onnx*")), tokenizer), dimension, settings)

    @property
    def info(self) -> EncoderInfo:
        """See ``Encoder.info``."""
        return self._info

    def encode_queries(self, texts: Sequence[str]) -> "Vectors":
        """See ``Encoder.encode_queries``."""
        return self._encode([self._settings.query_prefix + clean_text(text) for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> "Vectors":
        """See ``Encoder.encode_passages``."""
        return self._encode([self._settings.passage_prefix + clean_text(text) for text in texts])

    def _set_up_tokenizer(self) -> None:
        padding = self._tokenizer.padding or {}
        self._tokenizer.enable_truncation(self._settings.max_tokens)
        self._tokenizer.enable_padding(
            pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"), length=None
        )

    def _encode(self, texts: list[str]) -> "Vectors":
        import numpy as np

        vectors = np.zeros((len(texts), self._info.dimension), np.float32)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            vectors[rows] = self._forward([texts[row] for row in rows])
        return vectors

    def _forward(self, texts: list[str]) -> "Vectors":
        import numpy as np

        encoded = self._tokenizer.encode_batch(texts)
        columns = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        states = self._session.run(None, {name: columns[name] for name in self._inputs})[0]
        pooled = states[:, 0] if self._settings.pooling == "cls" else _mean(states, columns["attention_mask"])
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        unit: Vectors = (pooled / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit


async def open_encoder(spec: ProviderSpec) -> HuggingFaceEncoder:
    """Open the folder that the option ``encoder`` names. Raises ``ConfigurationError`` without one."""
    path = spec.options.get("encoder")
    if not path:
        raise ConfigurationError(f"{spec.kind}: needs the folder of its encoder: {spec.kind}:…?encoder=FOLDER")
    return await asyncio.to_thread(lambda: HuggingFaceEncoder(Path(path).expanduser()))


def _mean(states: Any, mask: Any) -> Any:
    weights = mask[..., None]
    return (states * weights).sum(axis=1) / weights.sum(axis=1).clip(min=1)


def _files(path: Path) -> tuple[Path, Path]:
    model = next((path / name for name in _MODELS if (path / name).is_file()), None)
    if model is None:
        raise ConfigurationError(f"the encoder {path} has no {_MODELS[0]}; export the model to ONNX first")
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise ConfigurationError(f"the encoder {path} has no tokenizer.json")
    return model, tokenizer


def _load_settings(path: Path) -> EncoderSettings:
    file = path / SETTINGS
    if not file.is_file():
        return EncoderSettings()
    try:
        return settings_from(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the encoder's settings {file} are malformed: {error}") from error


def settings_from(values: object) -> EncoderSettings:
    """Return settings from parsed JSON; raise ``ValueError`` for an unknown name or a value of the wrong type."""
    known = {field.name: type(getattr(EncoderSettings(), field.name)) for field in fields(EncoderSettings)}
    if not isinstance(values, dict) or not set(values) <= set(known):
        raise ValueError(f"expected an object of {', '.join(known)}")
    for name, value in values.items():
        if type(value) is not known[name]:
            raise ValueError(f"{name} must be of type {known[name].__name__}")
    settings = EncoderSettings(**values)
    if settings.pooling not in ("mean", "cls") or settings.max_tokens < 1:
        raise ValueError('pooling must be "mean" or "cls", and max_tokens at least 1')
    return settings


def _checksum(*paths: Path) -> str:
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
