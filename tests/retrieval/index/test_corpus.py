"""Reading a corpus: what is accepted, and how each fault is named."""

from pathlib import Path

import pytest

from searchr1.errors import CorpusError
from searchr1.retrieval.index.corpus import CorpusRecord, read_corpus

GOOD = b'{"id": "a", "contents": "T\\nx"}\n'


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(data)
    return path


def test_reads_records_in_order(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + GOOD + b"\r\n  \n" + '{"id": 2, "contents": "é", "extra": []}'.encode()
    assert list(read_corpus(write(tmp_path, data))) == [CorpusRecord("a", "T\nx"), CorpusRecord("2", "é")]


def test_replaces_what_cannot_be_encoded(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"id": "a\\u0000", "contents": "x\\ud800y"}')
    assert list(read_corpus(path)) == [CorpusRecord("a\ufffd", "x\ufffdy")]


def test_reports_every_byte_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + b"\n\n")
    counts: list[int] = []
    list(read_corpus(path, counts.append))
    assert sum(counts) == path.stat().st_size


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "expected an object"),
        (b'{"contents": "x"}', 'the field "id" is missing'),
        (b'{"id": "b"}', 'the field "contents" is missing'),
        (b'{"id": "", "contents": "x"}', '"id" must be'),
        (b'{"id": true, "contents": "x"}', '"id" must be'),
        (b'{"id": 1.5, "contents": "x"}', '"id" must be'),
        (b'{"id": null, "contents": "x"}', '"id" must be'),
        (b'{"id": "b", "contents": ["x"]}', '"contents" must be a string, got list'),
        (b'{"id": "a", "contents": "x"}', "the id 'a' was used by an earlier line"),
    ],
)
def test_names_file_and_line_of_a_fault(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path, GOOD + b"\n" + line + b"\n")
    with pytest.raises(CorpusError) as caught:
        list(read_corpus(path))
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_an_empty_corpus_is_a_fault(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorpusError, match="is empty"):
        list(read_corpus(write(tmp_path, data)))


def test_a_missing_file_or_a_folder_is_a_fault(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(CorpusError, match="cannot be read"):
            list(read_corpus(path))
