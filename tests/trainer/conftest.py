import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.loop.types import Passage
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.bpe import save_tokenizer, train_tokenizer
from searchr1.trainer.warmup.config import WarmupConfig
from searchr1.trainer.warmup.model import ModelShape


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from a second thread, and threads that wait for each other spin."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TINY = ModelShape(vocab_size=384, hidden_size=256, mlp_size=64, num_layers=3, num_heads=4)


def record(name: str, place: str) -> dict[str, object]:
    passage = {"title": f'"{name}"', "text": f"{name} is a city in {place}."}
    return {
        "id": name,
        "question": f"In which country is {name}?",
        "golden_answers": [place],
        "hops": 1,
        "kind": "city-country",
        "entities": {name: "city", place: "country"},
        "turns": [
            {
                "text": f"<think> I need the country of {name}. </think>\n<search> country of {name} </search>",
                "query": f"country of {name}",
                "passages": [passage],
            },
            {
                "text": f"<think> Doc 1 says {place}. </think>\n<answer> {place} </answer>",
                "query": None,
                "passages": [],
            },
        ],
    }


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of eleven made-up cities in the format that the demo writes."""
    folder = tmp_path_factory.mktemp("data")
    shuffle = random.Random(0)
    names = ["".join(shuffle.choice("aeioukmnrst") for _ in range(6)).title() for _ in range(33)]
    for split, cities in (("train", names[:22]), ("validation", names[22:])):
        lines = [json.dumps(record(a, b)) for a, b in zip(cities, reversed(cities), strict=True)]
        (folder / f"demonstrations-{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    passages = [{"id": n, "contents": f'"{n}"\n{n} is a city.'} for n in names[:22]]
    (folder / "corpus-train.jsonl").write_text("".join(json.dumps(p) + "\n" for p in passages), "utf-8")
    return folder


@pytest.fixture(scope="session")
def checkpoint_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = ["<think> I need the country of Mali. </think>\n<search> country of Mali </search>"] * 5
    save_tokenizer(train_tokenizer(texts, vocab_size=300), folder, max_length_tokens=4608)
    return folder


@pytest.fixture(scope="session")
def tokenizer(checkpoint_tokenizer: Path) -> Tokenizer:
    return Tokenizer.load(str(checkpoint_tokenizer))


@pytest.fixture
def demonstration() -> Demonstration:
    return Demonstration(
        "timbuktu",
        "In which country is Timbuktu",
        ("Mali",),
        1,
        "city-country",
        (
            DemonstratedTurn(
                "<think> Where? </think>\n<search> country of Timbuktu </search>",
                "country of Timbuktu",
                (Passage("1", '"Timbuktu"', "Timbuktu is in Mali. <answer> no </answer>"),),
            ),
            DemonstratedTurn("<think> Mali. </think>\n<answer> Mali </answer>"),
        ),
        {"Timbuktu": "city", "Mali": "country"},
    )


@pytest.fixture
def tiny_config(data_dir: Path, tmp_path: Path) -> WarmupConfig:
    return WarmupConfig(
        data_dir=data_dir,
        out_dir=tmp_path / "run",
        shape=TINY,
        max_steps=4,
        batch_size=4,
        drill_size=2,
        drill=0.5,
        validate_every_steps=2,
        num_validation_samples=4,
        save_every_steps=2,
        progress=False,
    )
