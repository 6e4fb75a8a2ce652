"""Files, folders and datasets of the Hugging Face hub, by their paths and names; how files of questions are called."""

from collections.abc import Sequence
from pathlib import Path

from searchr1.data.hub import cached_snapshot, is_hub_name, snapshot
from searchr1.data.sets import FLASHRAG_REPO, SETS, set_named
from searchr1.data.sources.base import Places, SourceFile
from searchr1.errors import DatasetError

SUFFIXES = (".parquet", ".jsonl")
_PACKED = ("", ".gz", ".xz", ".bz2", ".zst")
"""Endings that a file of JSON Lines may have behind its own."""
_FILES = (*SUFFIXES, *(f".jsonl{end}" for end in _PACKED))

_SPLITS = {
    "test": ("test", "dev", "validation"),
    "validation": ("validation", "dev", "val"),
    "dev": ("dev", "validation", "val"),
}
"""Splits to look for, in turn: HotpotQA, 2WikiMultiHopQA and MuSiQue keep their test answers to themselves."""


def files_at(source: str, places: Places, *, hints: Sequence[str]) -> tuple[SourceFile, ...]:
    """Return the files of the path or hub dataset ``source``.

    Raises:
        DatasetError: it is not there, or the name means nothing; ``hints`` are the named sources to tell of.
    """
    root = root_of(source, shared_names(places.split), hints)
    if root.is_file():
        return (SourceFile(root, set_in(root)),)
    path = first_file(root, shared_names(places.split))
    if path is not None:
        return (SourceFile(path, set_in(path)),)
    found = [(name, path) for name in SETS if (path := first_file(root, own_names(name, places.split))) is not None]
    if not found:
        raise DatasetError(no_file(source, places.split, shared_names(places.split)))
    return tuple(SourceFile(path, name) for name, path in found)


def root_of(source: str, wanted: Sequence[str], hints: Sequence[str] = ()) -> Path:
    """Return the file or folder at ``source``; of a hub dataset, the folder of the ``wanted`` files that it has.

    Raises:
        DatasetError: it is not there, or the name means nothing; ``hints`` are the named sources to tell of.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return cached_snapshot(path)
    if path.exists():
        return path
    if source.endswith(_FILES) or source.startswith((".", "~", "/")):
        raise DatasetError(f"{source} does not exist. Give 'atlas' or the path of a JSON Lines or parquet file")
    if not is_hub_name(source):
        raise DatasetError(
            f"'{source}' is no dataset: give {', '.join([*hints, 'a file', 'a folder'])}, "
            f"or a hub dataset such as {FLASHRAG_REPO}"
        )
    return snapshot(source, wanted)


def shared_names(split: str) -> list[str]:
    """Return the names of files that hold a split of everything in a folder, the likeliest first."""
    return [
        name
        for one in _SPLITS.get(split, (split,))
        for name in (f"{one}.parquet", f"{one}.jsonl", f"data/{one}-00000-of-00001.parquet")
    ]


def own_names(name: str, split: str) -> list[str]:
    """Return the names of files in a folder that hold one set alone; FlashRAG's first."""
    splits = _SPLITS.get(split, (split,))
    own = [f"{name}/{one}{suffix}" for one in splits for suffix in (".jsonl", ".parquet")]
    return [*own, f"{name}.jsonl", f"{name}.parquet"]


def first_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of ``names`` that is a file in ``folder``, JSON Lines also packed: ``test.jsonl.gz``."""
    spelled = (f"{name}{end}" for name in names for end in (_PACKED if name.endswith(".jsonl") else ("",)))
    return next((path for name in spelled if (path := folder / name).is_file()), None)


def set_in(path: Path) -> str | None:
    """Return the set after which a file or its folder is named: ``nq.jsonl``, ``nq.jsonl.gz``, ``nq/train.jsonl``."""
    return set_named(path.name.partition(".")[0]) or set_named(path.parent.name)


def no_file(source: str, split: str, names: Sequence[str]) -> str:
    """Return the message for a folder that has none of the files ``names``."""
    return f"{source} holds no questions of the split '{split}': it has none of {', '.join(names)}"
