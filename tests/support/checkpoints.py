"""Checkpoint folders that are damaged in one way each, and how: what an operator may hand to a reload by mistake."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
Tensors = dict[str, tuple[str, list[int], bytes]]
"""Type, shape and bytes by name."""


def read_tensors(file: Path) -> Tensors:
    """Read a whole safetensors file."""
    content = file.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            content[data + entry["data_offsets"][0] : data + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def write_tensors(file: Path, tensors: Tensors) -> None:
    """Write a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(content)]}
        start += len(content)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content for _, _, content in tensors.values()))


def shard(folder: Path) -> None:
    """Split the weights in two files with an index."""
    tensors = list(read_tensors(folder / WEIGHTS).items())
    (folder / WEIGHTS).unlink()
    halves = {"one.safetensors": tensors[::2], "two.safetensors": tensors[1::2]}
    for name, half in halves.items():
        write_tensors(folder / name, dict(half))
    places = {tensor: name for name, half in halves.items() for tensor, _ in half}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def _tensors(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = read_tensors(folder / WEIGHTS)
        change(tensors)
        write_tensors(folder / WEIGHTS, tensors)

    return damage


def _config(**fields: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return damage


def _bytes(change: Callable[[bytes], bytes], name: str = WEIGHTS) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


def _entry(**fields: Any) -> Callable[[bytes], bytes]:
    """Change what the header says of the embedding."""

    def change(content: bytes) -> bytes:
        data = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:data])
        header[EMBEDDING] |= fields
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[data:]

    return change


def _half_of_the_tensors(tensors: Tensors) -> None:
    for name in list(tensors)[::2]:
        del tensors[name]


def _with(dtype: str | None = None, shape: list[int] | None = None, content: bytes | None = None) -> Any:
    def change(tensors: Tensors) -> None:
        old_dtype, old_shape, old_content = tensors[EMBEDDING]
        tensors[EMBEDDING] = (dtype or old_dtype, shape or old_shape, content or old_content)

    return _tensors(change)


def _value(low: int, high: int) -> Any:
    """Put one bfloat16 value at the embedding's end."""

    def change(tensors: Tensors) -> None:
        dtype, shape, content = tensors[EMBEDDING]
        tensors[EMBEDDING] = (dtype, shape, content[:-2] + bytes((low, high)))

    return _tensors(change)


def _in_shards(damage: Callable[[Path], object]) -> Callable[[Path], None]:
    def sharded(folder: Path) -> None:
        shard(folder)
        damage(folder)

    return sharded


def _index(**weight_map: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / INDEX
        index = json.loads(file.read_text())
        index["weight_map"] |= weight_map
        file.write_text(json.dumps(index))

    return damage


def _replace_by_link(name: str, target: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _loop(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder)


def _folder_for_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def _pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def _rename(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "garbage": _bytes(lambda _: bytes(range(250)) * 4),
    "text": _bytes(lambda _: b"version https://git-lfs.github.com/spec/v1\n"),
    "zero bytes": _bytes(lambda _: b""),
    "seven bytes": _bytes(lambda content: content[:7]),
    "half a header": _bytes(lambda content: content[:100]),
    "half a file": _bytes(lambda content: content[: len(content) // 2]),
    "all but a byte": _bytes(lambda content: content[:-1]),
    "a byte more": _bytes(lambda content: content + b"\0"),
    "a header of 2**63 bytes": _bytes(lambda content: b"\xff" * 7 + b"\x7f" + content[8:]),
    "a header that is a list": _bytes(lambda _: (2).to_bytes(8, "little") + b"[]"),
    "a header that is deep": _bytes(lambda _: (50_000).to_bytes(8, "little") + b"[" * 50_000),
    "no tensors": _tensors(lambda tensors: tensors.clear()),
    "half of the tensors": _tensors(_half_of_the_tensors),
    "one tensor lost": _tensors(lambda tensors: tensors.pop("model.norm.weight")),
    "one tensor more": _tensors(lambda tensors: tensors.update({"model.extra.weight": ("BF16", [1], b"\0\0")})),
    "a NaN": _value(0xC0, 0x7F),
    "a negative NaN": _value(0x81, 0xFF),
    "an infinity": _value(0x80, 0x7F),
    "zeros of another shape": _with(shape=[1024, 512]),
    "a transposed shape": _with(shape=[256, 2048]),
    "a shorter shape": _with(shape=[2047, 256], content=b"\0" * 2047 * 256 * 2),
    "integers": _with(dtype="I16"),
    "an eight-bit type": _with(dtype="F8_E4M3", content=b"\0" * 2048 * 256),
    "an unknown type": _bytes(_entry(dtype="F7")),
    "a type that is a number": _bytes(_entry(dtype=16)),
    "a negative size": _bytes(_entry(shape=[-2048, -256])),
    "a size as text": _bytes(_entry(shape=["2048", 256])),
    "a shape that is null": _bytes(_entry(shape=None)),
    "offsets that overlap": _bytes(_entry(data_offsets=[0, 2048 * 256 * 2 - 2])),
    "offsets past the end": _bytes(_entry(data_offsets=[2**40, 2**40 + 2048 * 256 * 2])),
    "offsets the wrong way round": _bytes(_entry(data_offsets=[2048 * 256 * 2, 0])),
    "three offsets": _bytes(_entry(data_offsets=[0, 1, 2])),
    "other layers": _config(num_hidden_layers=6),
    "another architecture": _config(architectures=["LlamaForCausalLM"]),
    "another model type": _config(model_type="llama"),
    "another base of positions": _config(rope_parameters={"rope_theta": 10_000.0, "rope_type": "default"}),
    "a quantization": _config(quantization_config={"quant_method": "awq"}),
    "untied embeddings": _config(tie_word_embeddings=False),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "a broken config": _bytes(lambda _: b"{", "config.json"),
    "a config that is a list": _bytes(lambda _: b"[]", "config.json"),
    "a config of zero bytes": _bytes(lambda _: b"", "config.json"),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "a broken tokenizer": _bytes(lambda _: b"{}", "tokenizer.json"),
    "another tokenizer": _bytes(lambda text: text.replace("Ġthe".encode(), "Ġthx".encode(), 1), "tokenizer.json"),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "weights of another form": _rename,
    "a lost shard": _in_shards(lambda folder: (folder / "two.safetensors").unlink()),
    "half a shard": _in_shards(_bytes(lambda content: content[: len(content) // 2], "two.safetensors")),
    "a shard outside the folder": _in_shards(_index(x="../one.safetensors")),
    "a shard at an absolute path": _in_shards(_index(x="/etc/passwd")),
    "a shard that is a number": _in_shards(_index(x=1)),
    "an index that names a tensor too many": _in_shards(_index(x="one.safetensors")),
    "an index that is broken": _in_shards(_bytes(lambda _: b"{", INDEX)),
    "an index without a map": _in_shards(_bytes(lambda _: b"{}", INDEX)),
    "a tensor in two files": lambda folder: shutil.copy(folder / WEIGHTS, folder / "again.safetensors"),
    "an empty folder": _empty,
    "a folder that links to itself": _loop,
    "weights that link to themselves": _replace_by_link(WEIGHTS, WEIGHTS),
    "weights that link to nothing": _replace_by_link(WEIGHTS, "/nowhere/at/all"),
    "weights that link to a device": _replace_by_link(WEIGHTS, "/dev/zero"),
    "a config that links to itself": _replace_by_link("config.json", "config.json"),
    "a folder in place of weights": _folder_for_file,
    "a pipe in place of weights": _pipe,
}
"""What each does to a copy of the demo's checkpoint."""

HARMLESS: dict[str, Callable[[Path], Any]] = {
    "as it is": lambda _: None,
    "in shards": shard,
    "fields of another version": _config(transformers_version="4.40.0", use_cache=False, x_new=1),
    "a file beside it": lambda folder: (folder / "optimizer.pt").write_bytes(b"x"),
    "a link to the weights": lambda folder: (folder / WEIGHTS).symlink_to((folder / WEIGHTS).rename(folder / "blob")),
    "a tied output layer": _tensors(lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING]})),
    "float32": _with(dtype="F32", content=b"\0" * 2048 * 256 * 4),
    "positions of old": _tensors(
        lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [1], b"\0\0\0\0")})
    ),
}
"""What an engine takes as well."""


def damaged_copy(source: Path, folder: Path, damage: Callable[[Path], Any]) -> Path:
    """Copy the checkpoint in ``source`` to ``folder`` and damage it."""
    shutil.copytree(source, folder)
    damage(folder)
    return folder
