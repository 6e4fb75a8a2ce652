"""docs/guides/distributed-training.md against the fields and files that it names."""

import re
from pathlib import Path

import pytest
import yaml

from searchr1.engines.vllm.worker import WorkerExtension
from searchr1.trainer.rl.config import TrainConfig

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "guides" / "distributed-training.md").read_text(encoding="utf-8")
REQUIRED = {"algorithm": "grpo", "model": "m", "data": "d", "retriever": "r", "out_dir": "o"}


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL))
def test_the_settings_are_fields(text: str) -> None:
    TrainConfig.model_validate(REQUIRED | yaml.safe_load(text))


@pytest.mark.parametrize("name", re.findall(r"configs/[\w.-]+\.yaml", DOCS))
def test_the_files_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_worker_extension_is_where_it_says() -> None:
    assert f"{WorkerExtension.__module__}.{WorkerExtension.__qualname__}" in DOCS
