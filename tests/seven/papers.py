"""Invented questions and passages in the shape of the table's files, and results of rows that nobody measured."""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from loadtests.seven.kept import Kept, records_file, write_kept, write_places
from loadtests.seven.questions import Asked, read_questions
from searchr1.evaluation.records import Record, RecordFile

QUESTIONS: list[dict[str, object]] = [
    {
        "id": f"q{n}",
        "question": f"Who keeps lighthouse {n}?",
        "golden_answers": [f"Keeper {n}"],
        "dataset": dataset,
        "hops": hops,
        "gold_ids": [str(n)],
        "supporting_titles": [f"Lighthouse {n // 2}"],
    }
    for dataset, hops, first in (("nq", 1, 0), ("2wiki", 2, 10), ("squad", 1, 20))
    for n in range(first, first + 10)
] + [
    {
        "id": "yes",
        "question": "Is lighthouse 10 older than lighthouse 11?",
        "golden_answers": ["yes"],
        "dataset": "2wiki",
        "hops": 2,
        "gold_ids": ["10", "11"],
        "supporting_titles": ["Lighthouse 5", "Lighthouse 6"],
    },
    {
        "id": "told",
        "question": "Who keeps lighthouse 30?",
        "golden_answers": ["Keeper 30", "The Keeper 30"],
        "dataset": "bamboogle",
        "hops": 2,
        "evidence": "title",
        "evidence_titles": ["Lighthouse 15"],
    },
]


def write_questions(folder: Path) -> Path:
    """Write the questions, packed; 28 are counted in averages."""
    path = folder / "test.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(question) + "\n" for question in QUESTIONS)
    return path


def write_corpus(folder: Path) -> Path:
    """Write a passage for each lighthouse, and another one that names no keeper for each article."""
    passages = [
        {"id": str(n), "contents": f'"Lighthouse {n // 2}"\nLighthouse {n} is kept by Keeper {n}.'} for n in range(31)
    ]
    passages += [{"id": f"other-{n}", "contents": f'"Lighthouse {n}"\nIt is white.'} for n in range(16)]
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(passage) + "\n" for passage in passages), "utf-8")
    return path


def kept(row: str, sampling: str = "greedy", **fields: object) -> Kept:
    """What is kept of a row that was measured in a minute and a half."""
    given = {
        "seed": None if sampling == "greedy" else 1,
        "command": "python -m loadtests.seven run OUT",
        "model": "lamp",
        "digest": "0123456789abcdef",
        "num_questions": len(QUESTIONS),
        "sessions": ((100.0, 160.0), (200.0, 230.0)),
        "made_with": {"commit": "abc", "machine": "2 × lamp"},
    }
    return Kept(row=row, sampling=sampling, **{**given, **fields})  # type: ignore[arg-type]


def write_row(
    out: Path,
    what: Kept,
    asked: Iterable[Asked],
    right: Mapping[str, bool],
    *,
    searches: Mapping[int, int] | None = None,
    failed: tuple[str, ...] = (),
) -> None:
    """Write a row's records: ``right`` by id, wrong where it says nothing; ``searches`` by hops."""
    write_kept(out, what)
    with RecordFile(records_file(out, what.name)) as file:
        for one in asked:
            question = one.question
            is_right = right.get(question.id, False)
            file.append(
                Record(
                    id=question.id,
                    question=question.question,
                    golden_answers=question.golden_answers,
                    hops=question.hops,
                    kind=None,
                    options={},
                    extractor="own",
                    status="failed" if question.id in failed else "completed",
                    wall_s=0.1,
                    answer=question.golden_answers[0] if is_right else "nobody",
                    exact_match=is_right,
                    sub_exact_match=is_right,
                    data_source=question.data_source,
                    searches=(searches or {}).get(question.hops or 0, 0),
                    method="rag",
                )
            )


def asked_questions(folder: Path) -> list[Asked]:
    """The questions, as they are read, with their places written into ``folder``."""
    questions = read_questions(write_questions(folder))
    write_places(folder, questions)
    return questions
