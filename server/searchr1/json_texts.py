"""JSON values out of a file as people have it: one a line or in an array, packed or not, with or without a BOM."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from searchr1.errors import SearchR1Error, missing_package

_BOM = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"{\x00": "UTF-16", b"\x00{": "UTF-16"}
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a parquet file, and JSON is wanted here",
    b"SQLite format": "a database, and JSON is wanted here",
}
_READ_BYTES = 1 << 20
_SPACE = b" \t\r\n"

OnBytes = Callable[[int], None]


def json_texts(
    path: Path, fault: type[SearchR1Error], on_bytes: OnBytes = lambda _: None
) -> Iterator[tuple[str, bytes]]:
    """Yield where each value of ``path`` stands, for messages, and its text: a line of the file, or an array's item.

    Blank lines are skipped. Files packed by gzip, bzip2, xz or zstd are known by their first bytes. One value at a
    time is in memory. ``on_bytes`` hears of the bytes of the file, packed as they are, once they have been read.

    Raises:
        SearchR1Error: of the type ``fault``: the file can't be read, is no text, or is a broken array. Lines are not
            looked into.
    """
    place = "at its start"
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            file = stack.enter_context(_unpacked(raw, path, fault))
            head = _head(file, path, fault)
            meter = _Meter(raw, on_bytes)
            values = _items(head, file, path, fault) if head.lstrip(_SPACE).startswith(b"[") else _lines(head, file)
            for place, text in values:
                meter.update()
                yield f"{path}, {place}", text
            meter.update()
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise fault(f"{path} is cut off or damaged after {place}: {error}") from error
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror or error}") from error


def is_parquet(path: Path) -> bool:
    """Tell whether a file is parquet, by its name or else by its first bytes."""
    if path.suffix == ".parquet":
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


class _Meter:
    """Tells how much of a file has been read."""

    def __init__(self, raw: IO[bytes], on_bytes: OnBytes) -> None:
        self._raw, self._on_bytes, self._told = raw, on_bytes, 0

    def update(self) -> None:
        if (place := self._raw.tell()) > self._told:
            self._on_bytes(place - self._told)
            self._told = place


def _unpacked(raw: IO[bytes], path: Path, fault: type[SearchR1Error]) -> IO[bytes]:
    """Return a file of what is in ``raw``, unpacked where it is packed."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if start.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if start.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(raw)
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        return _from_zstd(raw, path, fault)
    return raw


def _from_zstd(raw: IO[bytes], path: Path, fault: type[SearchR1Error]) -> IO[bytes]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
    except ImportError as error:
        raise fault(missing_package(f"{path} is packed by zstd, which", "pyarrow", "data")) from error
    return cast("IO[bytes]", io.BufferedReader(pa.CompressedInputStream(raw, "zstd")))


def _head(file: IO[bytes], path: Path, fault: type[SearchR1Error]) -> bytes:
    """Read the first line that is not blank, without a BOM, or the start of it where it is long."""
    head = b""
    while not head.removeprefix(_BOM).strip() and (line := file.readline(_READ_BYTES)):
        head += line
    head = head.removeprefix(_BOM)
    for start, encoding in _OTHER_ENCODINGS.items():
        if head.startswith(start):
            say = f"is in {encoding}; make it UTF-8 first: iconv -f {encoding} -t UTF-8 {path.name}"
            raise fault(f"{path} {say}")
    for start, what in _NO_TEXT.items():
        if head.startswith(start):
            raise fault(f"{path} is {what}")
    return head


def _lines(head: bytes, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    blank = head[: len(head) - len(head.lstrip(_SPACE))]
    number = 1 + blank.count(b"\n")
    line = head[len(blank) :]
    if not line.endswith(b"\n"):
        line += file.readline()
    while line:
        if line.strip():
            yield f"line {number}", line
        line = file.readline()
        number += 1


def _items(head: bytes, file: IO[bytes], path: Path, fault: type[SearchR1Error]) -> Iterator[tuple[str, bytes]]:
    """Yield the items of an array, which may span any number of lines."""
    items = _Array(head, file)
    number = 0
    try:
        items.open()
        while (text := items.item()) is not None:
            number += 1
            yield f"item {number}", text.encode()
    except UnicodeDecodeError as error:
        raise fault(f"{path}: not valid UTF-8 after item {number}") from error
    except (ValueError, RecursionError) as error:
        raise fault(f"{path}: not a valid JSON array after item {number}: {error}") from error


class _Array:
    """An array, read piece by piece. ``text`` is what has been read of it and not been given out."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._text, self._at = "", 0
        self._decoder, self._file = (
            json.JSONDecoder(),
            io.TextIOWrapper(io.BufferedReader(_Joined(head, file)), "utf-8"),
        )
        self._done = False

    def open(self) -> None:
        """Skip the bracket that opens the array."""
        self._skip_space()
        self._at += 1
        if self._skip_space() == "]":
            self._close()

    def item(self) -> str | None:
        """Return the text of the next item; None after the last. Raises ``ValueError`` for what is no JSON."""
        if self._done:
            return None
        self._skip_space()
        end = self._end_of_value()  # which may move the start
        text = self._text[self._at : end]
        self._at = end
        following = self._skip_space()
        if following == "]":
            self._close()
        elif following == ",":
            self._at += 1
        else:
            raise ValueError("a comma or a closing bracket is missing")
        return text

    def _close(self) -> None:
        self._at += 1
        if self._skip_space():
            raise ValueError("something follows the closing bracket")
        self._done = True

    def _end_of_value(self) -> int:
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
            else:
                # A number may go on in what is not read yet; nothing else can.
                if end < len(self._text) or not self._more():
                    return end

    def _skip_space(self) -> str:
        """Go to the next character that is no space, and return it; nothing at the end of the file."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, each time as much again as is left, so that a long item is not tried too often."""
        rest = self._text[self._at :]
        read = self._file.read(max(_READ_BYTES, len(rest)))
        if read:
            self._text, self._at = rest + read, 0
        return bool(read)


class _Joined(io.RawIOBase):
    """What has been read of a file already, and the rest of it."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._rest = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        found = self._head[: len(view)] or self._rest.read(len(view))
        self._head = self._head[len(found) :] if self._head else b""
        view[: len(found)] = found
        return len(found)
