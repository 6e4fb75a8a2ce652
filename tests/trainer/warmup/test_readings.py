import dataclasses
import json
from pathlib import Path

import pytest

from searchr1.atlas.records import read_readings
from searchr1.errors import ConfigurationError, CorpusError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.config import WarmupConfig
from searchr1.trainer.warmup.readings import encode_readings
from searchr1.trainer.warmup.train import warmup

ROW = {
    "passages": [
        {"title": '"Mali"', "text": "The capital of Mali is Bamako."},
        {"title": '"Peru"', "text": "Peru counts 34,049,588 inhabitants."},
    ],
    "statements": [
        {
            "document": "Doc 2",
            "quote": '(Title: "Peru") Peru counts 34,049,588 inhabitants.',
            "given": "So the population of Peru is",
            "value": "34,049,588",
        },
        {
            "document": "Doc 1",
            "quote": '(Title: "Mali") The capital of Mali is Bamako.',
            "given": "So the capital of Mali is",
            "value": "Bamako",
        },
    ],
}
WHOLE = (
    '\n\n<information>Doc 1(Title: "Mali") The capital of Mali is Bamako.\n'
    'Doc 2(Title: "Peru") Peru counts 34,049,588 inhabitants.</information>\n\n',
    '<think> Doc 2(Title: "Peru") Peru counts 34,049,588 inhabitants. So the population of Peru is 34,049,588. '
    'Doc 1(Title: "Mali") The capital of Mali is Bamako. So the capital of Mali is Bamako. This is the answer. '
    "</think>\n<answer> Bamako </answer>",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "readings-train.jsonl"
    path.write_text((json.dumps(ROW) + "\n") * 8, "utf-8")
    return path


def test_only_quotes_and_values_are_in_the_loss(path: Path, tokenizer: Tokenizer) -> None:
    samples = encode_readings(read_readings(path), tokenizer, progress=False)

    assert len(samples) == 8
    ids, mask = samples.ids[: samples.offsets[1]], samples.loss_mask[: samples.offsets[1]]
    assert tokenizer.decode(ids[mask].tolist()) == (
        '(Title: "Peru") Peru counts 34,049,588 inhabitants. 34,049,588.'
        '(Title: "Mali") The capital of Mali is Bamako. Bamako. Bamako </answer>'
    )


def test_its_pieces_are_tokenized_as_the_whole_is(path: Path, tokenizer: Tokenizer) -> None:
    samples = encode_readings(read_readings(path), tokenizer, progress=False)

    observation, completion = WHOLE
    assert samples.ids[: samples.offsets[1]].tolist() == tokenizer.encode(observation) + tokenizer.encode(completion)


def test_a_file_without_readings_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "readings.jsonl"
    path.touch()
    with pytest.raises(CorpusError, match="no reading"):
        encode_readings(read_readings(path), tokenizer, progress=False)


def test_a_run_learns_from_readings_too(tiny_config: WarmupConfig, path: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for source in tiny_config.data_dir.iterdir():
        (data / source.name).symlink_to(source)
    config = dataclasses.replace(tiny_config, data_dir=data, readings_size=2)
    with pytest.raises(ConfigurationError, match="demo build --readings"):
        warmup(config)

    path.rename(data / path.name)
    warmup(config)

    records = [json.loads(line) for line in (config.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(0 < record["readings_loss"] < 10 for record in records)
    alone = dataclasses.replace(config, readings_size=0, out_dir=tmp_path / "alone")
    warmup(alone)
    without = [json.loads(line) for line in (alone.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all("readings_loss" not in record for record in without)
    assert records[0]["tokens"] > without[0]["tokens"]
