"""The parts of an index folder that do not depend on how it ranks: its passages, its manifest, its making.

``passages.bin`` holds id and contents of every passage, UTF-8, end to end, and ``offsets.npy`` the place where each of
them starts. Where a passage has a link, ``urls.bin`` and ``url_offsets.npy`` hold the links likewise, and an empty one
for each passage without. ``manifest.json`` holds the format and the sizes of all files.
"""

import contextlib
import json
import mmap
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from searchr1.errors import CorpusError
from searchr1.files import whole_folder
from searchr1.loop.types import Passage
from searchr1.retrieval.index.corpus import CorpusRecord

MANIFEST, PASSAGES, OFFSETS = "manifest.json", "passages.bin", "offsets.npy"
URLS, URL_OFFSETS = "urls.bin", "url_offsets.npy"


class PassageWriter:
    """A writer of passages to an index folder, in order. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets, self._url_offsets = array("q", [0]), array("q", [0])

    def __enter__(self) -> "PassageWriter":
        self._file, self._urls = ((self._folder / name).open("wb") for name in (PASSAGES, URLS))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._urls.close()
        np.save(self._folder / OFFSETS, np.frombuffer(self._offsets, dtype=np.int64))
        if self._url_offsets[-1]:
            np.save(self._folder / URL_OFFSETS, np.frombuffer(self._url_offsets, dtype=np.int64))
        else:
            (self._folder / URLS).unlink()

    def add(self, record: CorpusRecord) -> None:
        """Append one passage."""
        for part in (record.id, record.contents):
            self._offsets.append(self._offsets[-1] + self._file.write(part.encode("utf-8")))
        self._url_offsets.append(self._url_offsets[-1] + self._urls.write((record.url or "").encode("utf-8")))

    def __len__(self) -> int:
        return len(self._offsets) // 2


class PassageStore:
    """The passages of an index folder, memory-mapped, for reading from any number of threads."""

    def __init__(self, folder: Path) -> None:
        """Open the passages of ``folder``; raise ``OSError`` or ``ValueError`` if they cannot be."""
        self._offsets, self._bytes = _mapped(folder, OFFSETS, PASSAGES)
        self._urls = _mapped(folder, URL_OFFSETS, URLS) if (folder / URLS).is_file() else None

    def __len__(self) -> int:
        return len(self._offsets) // 2

    def passage(self, row: int, score: float) -> Passage:
        """Return the passage that was added as number ``row``, counted from 0."""
        start, middle, end = self._offsets[2 * row : 2 * row + 3].tolist()
        identifier, contents = self._bytes[start:middle].decode("utf-8"), self._bytes[middle:end].decode("utf-8")
        return Passage.from_contents(contents, id=identifier, url=self._url(row), score=score)

    def _url(self, row: int) -> str | None:
        if self._urls is None:
            return None
        offsets, urls = self._urls
        start, end = offsets[row : row + 2].tolist()
        return urls[start:end].decode("utf-8") or None


def _mapped(folder: Path, offsets: str, texts: str) -> "tuple[npt.NDArray[np.int64], mmap.mmap]":
    with (folder / texts).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.load(folder / offsets, mmap_mode="r"), mapped


@contextlib.contextmanager
def new_folder(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to build an index in, which becomes ``out`` when the block ends well, and vanishes otherwise.

    Raises ``CorpusError`` for an ``out`` that exists (only an index is ever replaced, and only with ``overwrite``),
    and for a disk that refuses.
    """
    _check_target(out, overwrite)
    try:
        with whole_folder(out) as work:
            yield work
    except OSError as error:
        raise CorpusError(f"the index {out} cannot be written: {error.strerror or error}") from error


def _check_target(out: Path, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not (out / MANIFEST).is_file():
        raise CorpusError(f"{out} exists and is not an index; choose another path")
    if not overwrite:
        raise CorpusError(f"{out} is an index already; give --overwrite to replace it, or choose another path")


def write_manifest(folder: Path, format: str | int, values: dict[str, Any]) -> None:
    """Write the manifest of ``folder``, once all its other files are there."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    manifest = {"format": format, **values, "files": sizes}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(folder: Path, *formats: str | int) -> dict[str, Any]:
    """Read the manifest of ``folder`` and check sizes and format, one of ``formats``, the newest first.

    Raises ``CorpusError`` for what is not as it says.
    """
    if not folder.is_dir():
        raise CorpusError(f"the index {folder} does not exist or is not a folder")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (found_format := manifest["format"]) not in formats:
            # The kinds of index count their formats in different types.
            is_of_this_kind, newest = type(found_format) is type(formats[0]), formats[0]
            wanted = f"this version reads {newest!r}; build it again" if is_of_this_kind else f"expected {newest!r}"
            raise CorpusError(f"the index {folder} has format {found_format!r}, {wanted}")
        files: dict[str, int] = manifest["files"]
        for name, size in files.items():
            if (found := (folder / name).stat().st_size) != size:
                raise CorpusError(f"the index {folder} is damaged: {name} has {found} bytes, expected {size}")
    except OSError as error:
        raise CorpusError(f"{folder} is not a complete index: {error.strerror} ({error.filename})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"the manifest of the index {folder} is malformed: {error!r}") from error
    return manifest


@contextlib.contextmanager
def progress_bar(enabled: bool) -> Iterator[Progress]:
    """Give a progress bar on stderr, for tasks of any unit."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not enabled) as bar:
        yield bar
