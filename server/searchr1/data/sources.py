"""From what a user names to the files that hold it.

A source is ``atlas``, one of the seven sets (``nq``, …, or ``seven`` for all), a file, a folder, or a hub dataset.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from searchr1.data.hub import cached_snapshot, is_hub_name, snapshot
from searchr1.data.sets import FLASHRAG_REPO, SETS, SEVEN, UPSTREAM_REPO, set_named
from searchr1.errors import DatasetError

DATA_DIR = Path("data")
ATLAS = "atlas"
SUFFIXES = (".parquet", ".jsonl")

_SPLITS = {
    "test": ("test", "dev", "validation"),
    "validation": ("validation", "dev", "val"),
    "dev": ("dev", "validation", "val"),
}
"""What to look for, in turn: HotpotQA, 2WikiMultiHopQA and MuSiQue keep their test answers to themselves."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of questions, and which of its rows are meant."""

    path: Path
    data_source: str | None = None
    """Of the rows that do not name theirs."""
    only: frozenset[str] | None = None
    """The data sources whose rows are meant; None means all rows."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where names are looked up."""

    split: str = "test"
    """Of Atlas, of folders and of hub datasets; a file is read whole."""
    data_dir: Path = DATA_DIR
    """Holds ``atlas``."""
    data: str | None = None
    """A file, folder or hub dataset that holds the seven sets; None is upstream's."""


def locate(sources: Sequence[str], places: Places) -> tuple[SourceFile, ...]:
    """The files of ``sources``, in their order; sets that share a file are read in one pass over it.

    Raises:
        DatasetError: a source is not there, or its name means nothing.
    """
    names = [name for source in sources for name in (SETS if source == SEVEN else (source,))]
    sets = tuple(dict.fromkeys(known for name in names if (known := set_named(name)) is not None))
    files: list[SourceFile] = []
    sets_placed = False
    for name in names:
        if set_named(name) is None:
            files += _one(name, places)
        elif not sets_placed:
            files += _of_sets(sets, places)
            sets_placed = True
    return tuple(files)


def _one(source: str, places: Places) -> tuple[SourceFile, ...]:
    if source == ATLAS:
        return (_atlas(places),)
    root = _root(source, _shared_names(places.split))
    if root.is_file():
        return (SourceFile(root, _set_in(root)),)
    path = _first(root, _shared_names(places.split))
    if path is not None:
        return (SourceFile(path, _set_in(path)),)
    found = [(name, path) for name in SETS if (path := _first(root, _own_names(name, places.split))) is not None]
    if not found:
        raise DatasetError(_no_file(source, places.split, _shared_names(places.split)))
    return tuple(SourceFile(path, name) for name, path in found)


def _atlas(places: Places) -> SourceFile:
    path = places.data_dir / ATLAS / f"questions-{places.split}.jsonl"
    if not path.exists():
        raise DatasetError(f"{path} does not exist. Write the Atlas world with: searchr1 demo build")
    return SourceFile(path, ATLAS)


def _of_sets(sets: Sequence[str], places: Places) -> Iterator[SourceFile]:
    """A file of its own for each set that has one, and one file that many share for the others."""
    data = UPSTREAM_REPO if places.data is None else places.data
    shared_names = _shared_names(places.split)
    root = _root(data, [*shared_names, *(name for one in sets for name in _own_names(one, places.split))])
    shared: set[str] = set()
    for name in sets:
        own = None if root.is_file() else _first(root, _own_names(name, places.split))
        if own is None:
            shared.add(name)
        else:
            yield SourceFile(own, name)
    if not shared:
        return
    path = root if root.is_file() else _first(root, shared_names)
    if path is None:
        first = next(name for name in sets if name in shared)
        raise DatasetError(_no_file(data, places.split, [*_own_names(first, places.split)[:1], *shared_names]))
    yield SourceFile(path, _set_in(path), frozenset(shared))


def _root(source: str, wanted: Sequence[str]) -> Path:
    """The file or folder at ``source``; of a hub dataset, the folder of the ``wanted`` files that it has."""
    path = Path(source).expanduser()
    if path.is_dir():
        return cached_snapshot(path)
    if path.exists():
        return path
    if path.suffix in SUFFIXES or source.startswith((".", "~", "/")):
        raise DatasetError(f"{source} does not exist. Give '{ATLAS}' or the path of a JSON Lines or parquet file")
    if not is_hub_name(source):
        raise DatasetError(
            f"'{source}' is no dataset: give '{ATLAS}', one of {', '.join(SETS)}, '{SEVEN}' for all of these, "
            "a file, a folder, or a hub dataset such as " + FLASHRAG_REPO
        )
    return snapshot(source, wanted)


def _shared_names(split: str) -> list[str]:
    """Files of a folder that hold a split of everything in it, the likeliest first."""
    return [
        name
        for one in _SPLITS.get(split, (split,))
        for name in (f"{one}.parquet", f"{one}.jsonl", f"data/{one}-00000-of-00001.parquet")
    ]


def _own_names(name: str, split: str) -> list[str]:
    """Files of a folder that hold one set alone; FlashRAG's first."""
    splits = _SPLITS.get(split, (split,))
    own = [f"{name}/{one}{suffix}" for one in splits for suffix in (".jsonl", ".parquet")]
    return [*own, f"{name}.jsonl", f"{name}.parquet"]


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((path for name in names if (path := folder / name).is_file()), None)


def _set_in(path: Path) -> str | None:
    """The set after which a file or its folder is named: ``nq.jsonl``, ``nq/train.jsonl``."""
    return set_named(path.stem) or set_named(path.parent.name)


def _no_file(source: str, split: str, names: Sequence[str]) -> str:
    return f"{source} holds no questions of the split '{split}': it has none of {', '.join(names)}"
