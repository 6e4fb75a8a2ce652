"""A GGUF file as a plain Hugging Face folder: bfloat16 safetensors, tokenizer, chat template, generation config.

transformers unpacks the weights and rebuilds the tokenizer. What it leaves out is taken from the file's metadata:
whether a prompt begins with ``<bos>``, and every token that ends an answer. The folder is what vLLM serves and the
trainer trains; weights that were quantized stay as coarse as they were.
"""

import json
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from searchr1.errors import ConfigurationError, missing_package
from searchr1.files import whole_folder

EXTRA = "gguf"
PACKAGES = ("gguf", "accelerate", "sentencepiece")
"""Packages beside transformers that reading a GGUF file takes."""
MAGIC = b"GGUF"
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Metadata that name tokens which end a text, a turn, or a message."""
_SENTENCEPIECE = "llama"
"""The tokenizer model that puts ``<bos>`` where the file does not say so: llama.cpp's default."""


@dataclass(frozen=True, slots=True)
class GgufInfo:
    """The part of a GGUF file's metadata that is told or used."""

    architecture: str
    name: str
    license: str
    """Empty where the file does not say."""
    num_weights: int
    add_bos: bool | None
    """None: the file does not say, and its kind of tokenizer has no rule."""
    end_ids: tuple[int, ...]
    """Tokens that end an answer, without repeats."""
    has_chat_template: bool


@dataclass(frozen=True, slots=True)
class Converted:
    """A folder that was written."""

    folder: Path
    info: GgufInfo

    def __str__(self) -> str:
        info = self.info
        wraps = "with a chat template" if info.has_chat_template else "without a chat template"
        terms = f"license {info.license}" if info.license else "the file names no license"
        return (
            f"{self.folder}: {info.name or 'a model'}, {info.architecture}, {info.num_weights:,} weights in bfloat16, "
            f"{wraps}; {terms}. Serve it with: searchr1 serve --model {self.folder} --retriever …"
        )


def convert(
    file: Path, out: Path, *, overwrite: bool = False, progress: bool = True, tell: Callable[[str], None] = print
) -> Converted:
    """Write the model of ``file`` to the folder ``out``, which is there whole or is what it was before.

    ``tell`` hears what is being done, where ``progress``.

    Raises:
        ConfigurationError: a package is missing, ``out`` is taken or too small, or the file can't be read as a model.
    """
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ConfigurationError(missing_package("reading a GGUF file", package, EXTRA))
    _check_target(out, overwrite=overwrite)
    said = tell if progress else (lambda _: None)
    info = inspect(file)
    _check_space(out, info)
    said(f"{file.name}: {info.architecture}, {info.num_weights:,} weights")
    with _alone(file) as (folder, name), nullcontext() if progress else redirect_stderr(StringIO()):
        said("reading the tokenizer")
        tokenizer = _tokenizer(file, folder, name, info)
        said("unpacking the weights")
        model = _model(file, folder, name)
        said(f"writing {out}")
        try:
            with whole_folder(out) as part:
                tokenizer.save_pretrained(part)
                model.save_pretrained(part)
                _mend(part, info)
        except OSError as error:
            raise ConfigurationError(f"{out} can't be written: {error.strerror or error}") from error
    return Converted(out, info)


def inspect(file: Path) -> GgufInfo:
    """Return what a GGUF file says of itself, without its weights.

    Raises:
        ConfigurationError: it is missing, is no GGUF file, is cut off, is one part of several, or holds another kind of
            model than transformers reads.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            magic = opened.read(len(MAGIC))
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror or error}") from error
    if magic != MAGIC:
        raise ConfigurationError(f"{file} is no GGUF file: it begins with {magic!r}, not {MAGIC!r}")
    gguf = import_module("gguf")
    try:
        reader = gguf.GGUFReader(file)
        fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items() if _is_short(field)}
        end = max((tensor.data_offset + tensor.n_bytes for tensor in reader.tensors), default=0)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, OSError) as error:
        raise ConfigurationError(f"{file} is damaged or cut off, or of an unknown version: {error}") from error
    if end > size:
        raise ConfigurationError(f"{file} is cut off: its weights need {end:,} bytes, and it has {size:,}")
    _check_kind(file, fields, num_tensors=len(reader.tensors))
    tokens = {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}
    return GgufInfo(
        architecture=str(fields["general.architecture"]),
        name=str(fields.get("general.name", "")),
        license=str(fields.get("general.license", "")),
        num_weights=sum(int(tensor.n_elements) for tensor in reader.tensors),
        add_bos=tokens.get("add_bos_token", True if tokens.get("model") == _SENTENCEPIECE else None),
        end_ids=tuple(dict.fromkeys(int(tokens[name]) for name in _ENDS if name in tokens)),
        has_chat_template="tokenizer.chat_template" in fields,
    )


def _is_short(field: Any) -> bool:
    """Return whether a field holds one value, and not a vocabulary."""
    return len(field.data) == 1


def _check_kind(file: Path, fields: Mapping[str, Any], *, num_tensors: int) -> None:
    from transformers.integrations.gguf.gguf_conversion_mapping import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if (parts := int(fields.get("split.count", 1))) > 1:
        raise ConfigurationError(f"{file} is one of {parts} parts: put them together first (llama-gguf-split --merge)")
    architecture = fields.get("general.architecture")
    known = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS} - {"general", "tokenizer"}
    # As transformers has it: llama.cpp writes qwen2moe where transformers has qwen2_moe.
    if architecture is None or str(architecture).replace("-", "_") not in known | {n.replace("_", "") for n in known}:
        raise ConfigurationError(
            f"{file} holds a model of the architecture {architecture!r}, which transformers does not read from GGUF; "
            f"it reads {', '.join(sorted(known))}"
        )
    if not num_tensors:
        raise ConfigurationError(f"{file} holds no weights: a vocabulary alone")


def _check_target(out: Path, *, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not (out / "config.json").is_file():
        raise ConfigurationError(f"{out} exists and is not a model's folder; choose another path")
    if not overwrite:
        raise ConfigurationError(f"{out} is a model's folder already; give --overwrite to replace it, or another path")


def _check_space(out: Path, info: GgufInfo) -> None:
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    needed, free = 2 * info.num_weights, shutil.disk_usage(place).free
    if needed > free:
        raise ConfigurationError(f"{out} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


@contextmanager
def _alone(file: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder with the file alone: transformers would read other models' files that lie beside it."""
    with tempfile.TemporaryDirectory(prefix="searchr1-gguf-") as folder:
        (Path(folder) / "model.gguf").symlink_to(file.resolve())
        yield Path(folder), "model.gguf"


def _tokenizer(file: Path, folder: Path, name: str, info: GgufInfo) -> Any:
    from transformers import AutoTokenizer

    untyped: Any = AutoTokenizer
    says = {} if info.add_bos is None else {"add_bos_token": info.add_bos}
    try:
        return untyped.from_pretrained(folder, gguf_file=name, **says)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ConfigurationError(f"the tokenizer in {file} can't be read: {error}") from error


def _model(file: Path, folder: Path, name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    untyped: Any = AutoModelForCausalLM
    try:
        model, loaded = untyped.from_pretrained(
            folder,
            gguf_file=name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    except (ValueError, KeyError, RuntimeError, OSError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"the weights in {file} can't be read: {error}") from error
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    if missing := sorted(set(loaded["missing_keys"]) - tied):
        raise ConfigurationError(f"{file} lacks {len(missing)} weights of its model, the first: {missing[0]}")
    if bad := [key for key, weight in model.state_dict().items() if not bool(torch.isfinite(weight).all())]:
        raise ConfigurationError(f"{file} holds weights that are not finite, the first: {bad[0]}")
    # They are plain numbers from here on; marked as quantized, they could not be saved.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(torch.bfloat16)


def _mend(folder: Path, info: GgufInfo) -> None:
    """Write what transformers leaves out, drop what is true of this machine alone, and let everyone read the files."""
    config = _read(folder / "tokenizer_config.json")
    for name in ("is_local", "local_files_only", "gguf_file", "name_or_path"):
        config.pop(name, None)
    if info.add_bos is not None:
        config["add_bos_token"] = info.add_bos
    _write(folder / "tokenizer_config.json", config)
    generation = _read(folder / "generation_config.json")
    for name in ("output_attentions", "output_hidden_states", "use_cache"):
        generation.pop(name, None)
    if info.end_ids:
        generation["eos_token_id"] = info.end_ids[0] if len(info.end_ids) == 1 else list(info.end_ids)
    _write(folder / "generation_config.json", generation)
    for path in folder.iterdir():
        path.chmod(path.stat().st_mode | stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
