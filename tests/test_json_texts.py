"""Files of JSON as people have them: lines or an array, packed or not; and what is said of the others."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from searchr1.errors import DatasetError
from searchr1.json_texts import json_texts

ROWS = [{"id": "1", "t": "a [b], c"}, {"id": 2, "t": 'ü "x"\u2028'}, {"t": {"deep": [1, 2.5, None]}}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
PLAIN = {
    "lines": LINES,
    "crlf": LINES.replace(b"\n", b"\r\n"),
    "bom": b"\xef\xbb\xbf" + LINES,
    "blank lines": b"\n  \n" + LINES.replace(b"\n", b"\n\n"),
    "bom and blank lines": b"\xef\xbb\xbf\n" + LINES,
    "no last newline": LINES.rstrip(),
    "array": json.dumps(ROWS).encode(),
    "pretty array": json.dumps(ROWS, indent=2).encode(),
    "array of lines": b"[\n" + LINES.rstrip().replace(b"\n", b",\n") + b"\n]\n",
    "array with bom": b"\xef\xbb\xbf" + json.dumps(ROWS, ensure_ascii=False).encode(),
    "pretty array, crlf": json.dumps(ROWS, indent=1).replace("\n", "\r\n").encode(),
}


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}


def values(path: Path) -> list[object]:
    return [json.loads(text) for _, text in json_texts(path, DatasetError)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.gz", "rows"])
@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("shape", PLAIN)
def test_every_shape_is_read_packed_or_not_whatever_its_name(tmp_path: Path, shape: str, pack: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(PACK[pack](PLAIN[shape]))
    told: list[int] = []
    assert [json.loads(text) for _, text in json_texts(path, DatasetError, told.append)] == ROWS
    assert sum(told) == path.stat().st_size


def test_places_are_lines_or_items(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\n" + LINES)
    assert [where for where, _ in json_texts(path, DatasetError)] == [f"{path}, line {n}" for n in (2, 3, 4)]
    path.write_bytes(PLAIN["pretty array"])
    assert [where for where, _ in json_texts(path, DatasetError)] == [f"{path}, item {n}" for n in (1, 2, 3)]


def test_long_values_and_long_files(tmp_path: Path) -> None:
    rows = [{"t": "ü" * 3_000_000}, *({"n": n} for n in range(200_000))]
    path = tmp_path / "x"
    path.write_text(json.dumps(rows))
    assert values(path) == rows
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert values(path) == rows


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"[]", b" [ \n ] ", gzip.compress(b"", mtime=0)])
def test_a_file_may_hold_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert values(tmp_path / "x") == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ('{"a": 1}\n'.encode("utf-16"), "is in UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8 x"),
        ('{"a": 1}\n'.encode("utf-16-le"), "is in UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-be"), "is in UTF-16"),
        (gzip.compress('[{"a": 1}]'.encode("utf-16"), mtime=0), "is in UTF-16"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"PAR1rest", "is a parquet file"),
        (gzip.compress(LINES * 1000, mtime=0)[:-20], "is cut off or damaged"),
        (gzip.compress(LINES * 1000, mtime=0)[:-8] + b"12345678", "is cut off or damaged"),
        (lzma.compress(LINES * 1000)[:-20], "is cut off or damaged"),
        (b'[{"a": 1}, {"b"', "not a valid JSON array after item 1"),
        (b'[{"a": 1} {"b": 2}]', "after item 0: a comma or a closing bracket is missing"),
        (b'[{"a": 1}]\n[{"b": 2}]', "something follows the closing bracket"),
        (b'[{"a": "\xff"}]', "not valid UTF-8 after item 0"),
        (b"[" * 200_000, "not a valid JSON array after item 0"),
    ],
)
def test_other_files_are_named_with_the_reason(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        values(tmp_path / "x")
    assert str(caught.value).startswith(str(tmp_path / "x"))
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(DatasetError, match="cannot be read"):
            values(path)
