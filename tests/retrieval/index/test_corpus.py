"""Reading a corpus: what is accepted, and how each fault is named."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import CorpusError
from searchr1.loop.types import Passage
from searchr1.retrieval.index.bm25 import LocalIndex, build_index
from searchr1.retrieval.index.corpus import Corpus, CorpusRecord, read_corpus
from searchr1.retrieval.index.dense import DenseIndex, build_dense
from searchr1.retrieval.index.encoder import HuggingFaceEncoder
from tests.retrieval.index.tiny_encoder import build_tiny_encoder

GOOD = b'{"id": "a", "contents": "T\\nx"}\n'


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(data)
    return path


GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "search.md"


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
    ("line", "expected"),
    [
        ({"id": "a", "contents": '"T"\nx'}, CorpusRecord("a", '"T"\nx')),
        ({"id": "a", "title": "T", "text": "x"}, CorpusRecord("a", '"T"\nx')),
        ({"_id": "a", "title": "T", "text": "x", "metadata": {}}, CorpusRecord("a", '"T"\nx')),
        ({"_id": "a", "title": "", "text": "x"}, CorpusRecord("a", '""\nx')),
        ({"id": "a", "title": None, "text": "x"}, CorpusRecord("a", '""\nx')),
        ({"id": "a", "title": '"T"', "text": "x\ny"}, CorpusRecord("a", '"T"\nx\ny')),
        ({"id": "a", "title": 1984, "text": "x"}, CorpusRecord("a", '"1984"\nx')),
        ({"id": "a", "title": ["T"], "text": "x"}, CorpusRecord("a", '""\nx')),
        ({"docid": "a", "passage": "x"}, CorpusRecord("a", '""\nx')),
        ({"id": "a", "content": "x"}, CorpusRecord("a", "x")),
        ({"id": "a", "contents": "x", "title": "T", "text": "y"}, CorpusRecord("a", "x")),
        ({"id": "a", "contents": ""}, CorpusRecord("a", "")),
        ({"id": 7, "contents": "x"}, CorpusRecord("7", "x")),
        ({"contents": "x"}, CorpusRecord("1", "x")),
        ({"id": None, "contents": "x"}, CorpusRecord("1", "x")),
        ({"id": "a", "contents": "x", "url": "https://x.test/a"}, CorpusRecord("a", "x", "https://x.test/a")),
        ({"id": "a", "text": "x", "metadata": {"url": "http://x.test/"}}, CorpusRecord("a", '""\nx', "http://x.test/")),
        ({"id": "a", "contents": "x", "url": "javascript:alert(1)"}, CorpusRecord("a", "x")),
        ({"id": "a", "contents": "x", "url": "https://u:p@x.test/"}, CorpusRecord("a", "x")),
        ({"id": "a", "contents": "x", "url": 7}, CorpusRecord("a", "x")),
        ({"id": "a", "contents": "x", "url": ""}, CorpusRecord("a", "x")),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_every_shape_of_a_passage(tmp_path: Path, line: dict[str, Any], expected: CorpusRecord, array: bool) -> None:
    text = json.dumps([line] if array else line)
    assert list(read_corpus(write(tmp_path, gzip.compress(text.encode())))) == [expected]


def test_fields_without_a_use_are_named(tmp_path: Path) -> None:
    lines = ['{"id": 1, "contents": "x", "lang": "en", "url": ""}', '{"_id": 2, "title": "T", "text": "y", "views": 1}']
    corpus = Corpus(write(tmp_path, "\n".join(lines).encode()))
    assert len(list(corpus)) == 2
    assert corpus.ignored == {"lang", "views"}
    corpus = Corpus(write(tmp_path, b'{"id": 1, "contents": "x", "title": "T", "metadata": {"url": "", "date": 1}}'))
    list(corpus)
    assert corpus.ignored == {"title", "metadata"}


def test_places_are_ids_where_there_are_none_and_may_not_be_taken(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"contents": "x"}\n\n{"contents": "y"}\n{"contents": "z"}\n')
    assert [record.id for record in read_corpus(path)] == ["1", "2", "3"]
    path = write(tmp_path, b'{"id": 2, "contents": "x"}\n{"contents": "y"}\n')
    with pytest.raises(CorpusError, match="line 2: the id '2' was used by an earlier passage"):
        list(read_corpus(path))


@pytest.mark.parametrize("kind", ["bm25", "dense"])
def test_links_and_texts_come_back_from_an_index(tmp_path: Path, kind: str) -> None:
    corpus = write(
        tmp_path,
        b'{"_id": "a", "title": "Mali", "text": "Bamako is here.", "url": "https://x.test/m"}\n'
        b'{"contents": "Bamako has no link."}',
    )
    if kind == "bm25":
        build_index(corpus, tmp_path / "index", progress=False)
        [found] = LocalIndex.open(tmp_path / "index").search_batch(["Bamako"], 2)
    else:
        build_tiny_encoder(tmp_path / "encoder", ["bamako", "link"])
        encoder = HuggingFaceEncoder(tmp_path / "encoder")
        build_dense(corpus, tmp_path / "index", encoder, progress=False)
        [found] = DenseIndex.open(tmp_path / "index", encoder).search_batch(["Bamako"], 2)
    passages = {passage.id: replace(passage, score=None) for passage in found}
    assert passages == {
        "a": Passage("a", '"Mali"', "Bamako is here.", "https://x.test/m"),
        "2": Passage("2", "Bamako has no link.", ""),
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"{", '; a corpus is one object {"id", "contents"} or'),
        (b"# Notes", "; a corpus is one object"),
        (b"Plain text.", "; a corpus is one object"),
        (b"<html>", "; a corpus is one object"),
        (b"\xff", "not valid UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "expected an object"),
        (b'{"id": "b"}', 'the field "contents" is missing, and so is "text"; it has id'),
        (b'{"id": "b", "title": "x"}', "it has id, title"),
        (b"{\n", "a line, or an array of objects"),
        (b'{"_id": {}, "contents": "x"}', '"_id" must be'),
        (b'{"id": "", "contents": "x"}', '"id" must be'),
        (b'{"id": true, "contents": "x"}', '"id" must be'),
        (b'{"id": 1.5, "contents": "x"}', '"id" must be'),
        (b'{"id": "b", "contents": ["x"]}', '"contents" must be a string, got list'),
        (b'{"id": "a", "contents": "x"}', "the id 'a' was used by an earlier passage"),
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


def test_the_pages_way_from_markdown_to_a_corpus_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(import json, re\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "pages" / "in").mkdir(parents=True)
    (tmp_path / "pages" / "a.md").write_text("Before.\nAll.\n# Mali\n\nThe franc.\n## Empty\n## Où\nÀ #1.\n", "utf-8")
    (tmp_path / "pages" / "in" / "b.md").write_text("", "utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, GUIDE.name, "exec"), {})
    records = list(read_corpus(tmp_path / "corpus.jsonl"))
    assert [record.contents.splitlines() for record in records] == [
        ['"Before."', "All."],
        ['"Mali"', "The franc."],
        ['"Où"', "À #1."],
    ]
