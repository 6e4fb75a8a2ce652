"""Building an index, and refusing what is not one."""

import json
from pathlib import Path

import pytest

from searchr1.errors import CorpusError
from searchr1.retrieval.index.bm25 import IndexInfo, LocalIndex, build_index, load_manifest
from searchr1.retrieval.index.terms import TermSettings, TermSplitter


def write_corpus(path: Path, *contents: str) -> Path:
    path.write_text("".join(json.dumps({"id": str(i), "contents": c}) + "\n" for i, c in enumerate(contents)))
    return path


def test_the_info_counts_what_was_indexed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", "Red fox\nthe red fox", "A river", "")
    info = build_index(corpus, tmp_path / "new" / "index", progress=False)
    assert info == IndexInfo(passages=3, terms=3, tokens=5, k1=0.9, b=0.4, tokenizer=TermSettings())
    assert load_manifest(tmp_path / "new" / "index") == info
    assert LocalIndex.open(tmp_path / "new" / "index").info == info


def test_the_progress_bar_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_index(write_corpus(tmp_path / "c.jsonl", "x"), tmp_path / "index")
    out, err = capsys.readouterr()
    assert out == ""
    assert "Reading passages" in err
    assert "Scoring terms" in err


def test_settings_travel_with_the_index(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", "The rivers of Córdoba", "something else")
    plain = TermSettings(stopwords=None, stemmer=None, fold_diacritics=False)
    build_index(corpus, tmp_path / "plain", progress=False, tokenizer=plain)
    build_index(corpus, tmp_path / "english", progress=False)
    hits = {
        name: [bool(found) for found in LocalIndex.open(tmp_path / name).search_batch(["the", "river", "cordoba"], 1)]
        for name in ("plain", "english")
    }
    assert hits == {"plain": [True, False, False], "english": [False, True, True]}


def test_terms_fold_case_marks_and_endings() -> None:
    terms = TermSplitter(TermSettings()).terms
    assert terms("The CITIES of São Tomé") == terms("city sao tome") == ["citi", "sao", "tome"]
    assert terms("Ελλάδα हिन्दी 7") == ["ελλαδα", *terms("हिन्दी"), "7"]
    assert terms("") == []


def test_an_existing_index_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(write_corpus(tmp_path / "1.jsonl", "first"), out, progress=False)
    second = write_corpus(tmp_path / "2.jsonl", "second")
    with pytest.raises(CorpusError, match="give --overwrite to replace it"):
        build_index(second, out, progress=False)
    open_before = LocalIndex.open(out)
    build_index(second, out, progress=False, overwrite=True)
    assert LocalIndex.open(out).search_batch(["second"], 1)[0][0].title == "second"
    assert open_before.search_batch(["first"], 1)[0][0].title == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl", "index"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_nothing_else_is_ever_replaced(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "precious"
    (out if kind == "folder" else tmp_path).mkdir(exist_ok=True)
    kept = out / "kept.txt" if kind == "folder" else out
    kept.write_text("kept")
    with pytest.raises(CorpusError, match="is not an index"):
        build_index(write_corpus(tmp_path / "c.jsonl", "x"), out, progress=False, overwrite=True)
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("contents", [["good", 7], ["!", "?"]])
def test_a_failed_build_leaves_nothing_behind(tmp_path: Path, contents: list[str]) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", *contents)
    with pytest.raises(CorpusError):
        build_index(corpus, tmp_path / "index", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_a_failed_rebuild_keeps_the_old_index(tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(write_corpus(tmp_path / "c.jsonl", "first"), out, progress=False)
    with pytest.raises(CorpusError):
        build_index(tmp_path / "missing.jsonl", out, progress=False, overwrite=True)
    assert len(LocalIndex.open(out)) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", "x")
    with pytest.raises(CorpusError, match="cannot be written"):
        build_index(corpus, corpus / "index", progress=False)


def edit_manifest(index: Path, **changes: object) -> None:
    manifest = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(manifest | changes))


def test_open_refuses_what_is_damaged(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build_index(write_corpus(tmp_path / "c.jsonl", "some words"), index, progress=False)

    def refusal() -> str:
        with pytest.raises(CorpusError) as caught:
            LocalIndex.open(index)
        assert str(index) in str(caught.value)
        return str(caught.value)

    original = (index / "manifest.json").read_text()
    edit_manifest(index, format=99)
    assert "has format 99, this version reads 2; build it again" in refusal()
    edit_manifest(index, format=2, tokenizer={"unknown": 1})
    assert "malformed" in refusal()
    edit_manifest(index, tokenizer={"analyzer": 9})
    assert "there is no analyzer 9 in this version; build the index again" in refusal()
    for text in ("", "[]", "{}", '{"format": 1}'):
        (index / "manifest.json").write_text(text)
        assert "malformed" in refusal()
    (index / "manifest.json").write_text(original)
    with (index / "passages.bin").open("ab") as passages:
        passages.write(b"x")
    assert "passages.bin has 12 bytes, expected 11" in refusal()
    (index / "passages.bin").unlink()
    assert "not a complete index" in refusal()


def test_open_refuses_what_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        LocalIndex.open(tmp_path / "missing")
    with pytest.raises(CorpusError, match="not a complete index"):
        LocalIndex.open(tmp_path)
