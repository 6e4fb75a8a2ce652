"""The invented world, indexed once, and a tokenizer to count with."""

from pathlib import Path

import pytest

from searchr1.retrieval.index.bm25 import build_index
from searchr1.trainer.warmup.bpe import save_tokenizer, train_tokenizer
from tests.starts.invented import passages, write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def index(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "bm25"
    info = build_index(world / "corpus.jsonl.xz", folder, progress=False)
    assert info.passages == 16
    return folder


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [row["contents"] for row in passages()] * 3
    save_tokenizer(train_tokenizer(texts, vocab_size=500), folder, max_length_tokens=4096)
    return folder
