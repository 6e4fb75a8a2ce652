"""Small files of questions, laid out as upstream, FlashRAG and the hub's cache lay theirs out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from searchr1.data.sets import SETS

COMMIT = "b7d80abfee334a7a91cb377544f09180d58b34f6"


def write_lines(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def flashrag(number: int, name: str, split: str) -> dict[str, Any]:
    """A line of FlashRAG: its ids begin anew in every set."""
    return {
        "id": f"{split}_{number}",
        "question": f"{name} {split} question {number}",
        "golden_answers": [f"{name} answer {number}", "other"],
        "metadata": {"supporting_facts": {"title": ["A"], "sent_id": [0]}},
    }


def upstream(number: int, name: str, split: str) -> dict[str, Any]:
    """A row of upstream's parquet, as ``scripts/data_process/qa_search_test_merge.py`` makes it."""
    line = flashrag(number, name, split)
    question = f"{line['question']}?"
    return {
        "id": line["id"],
        "question": question,
        "golden_answers": line["golden_answers"],
        "data_source": name,
        "prompt": [{"role": "user", "content": f"Answer the given question. Question: {question}\n"}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": line["golden_answers"]}},
        "extra_info": {"split": split, "index": number},
        "metadata": None,
    }


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def seven_sets(path: Path, num_each: int = 3, sets: Sequence[str] = SETS) -> Path:
    """Upstream's test file: all sets, one after the other."""
    return write_parquet(path, [upstream(i, name, "test") for name in sets for i in range(num_each)])


def flashrag_folder(root: Path, num_each: int = 3) -> Path:
    """Three sets hide their test answers, so that FlashRAG has a dev split of them."""
    for name in SETS:
        split = "dev" if name in ("hotpotqa", "2wikimultihopqa", "musique") else "test"
        write_lines(root / name / f"{split}.jsonl", *(flashrag(i, name, split) for i in range(num_each)))
    for name in ("nq", "hotpotqa"):
        write_lines(root / name / "train.jsonl", *(flashrag(i, name, "train") for i in range(num_each)))
    return root


def hub_cache(cache: Path, repo: str) -> Path:
    """The folder of a dataset's files in a hub cache, at the revision ``main``."""
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    files = folder / "snapshots" / COMMIT
    files.mkdir(parents=True)
    return files
