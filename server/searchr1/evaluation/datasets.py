"""The questions of an evaluation: Atlas, the seven sets of the paper, or files of one's own."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from searchr1.data.questions import Question, qualified_id
from searchr1.data.readers import read
from searchr1.data.sources import DATA_DIR, Places, SourceFile, locate
from searchr1.errors import DatasetError
from searchr1.files import refused

__all__ = ["DATA_DIR", "Question", "load_questions"]


def load_questions(
    dataset: str,
    *,
    split: str = "test",
    limit: int | None = None,
    data_dir: Path = DATA_DIR,
    data: str | None = None,
    on_bad: Callable[[DatasetError], None] = refused,
) -> tuple[Question, ...]:
    """Return the questions of ``dataset``, or the first ``limit`` of each of its files and sets; ids are unique.

    ``dataset`` is what ``searchr1.data.sources`` names, or several of these with commas between: ``nq,hotpotqa`` are
    looked up in ``data``, a file, folder or hub dataset (None is upstream's). ``on_bad`` hears of a malformed row,
    and of one without golden answers; it is left out unless that raises.

    Raises:
        DatasetError: a file is missing, empty or malformed, or lacks a set; file and row are named.
        ConfigurationError: it is parquet, and pyarrow is not installed.
    """
    names = [dataset] if Path(dataset).exists() else [name.strip() for name in dataset.split(",") if name.strip()]
    questions: dict[str, Question] = {}
    for file in locate(names, Places(split, data_dir, data)):
        for where, question in _chosen(file, limit, on_bad):
            if question.id in questions:
                raise DatasetError(f"{where}: the id {question.id!r} is taken by an earlier line")
            questions[question.id] = question
    if not questions:
        raise DatasetError(f"'{dataset}' names no dataset")
    return tuple(questions.values())


def _chosen(
    file: SourceFile, limit: int | None, on_bad: Callable[[DatasetError], None]
) -> Iterator[tuple[str, Question]]:
    """Yield the first ``limit`` of a file, or of each set that is wanted of it; no row after them is read."""
    counts: dict[str | None, int] = dict.fromkeys(sorted(file.only or ()), 0)
    for where, question in read(file, on_bad):
        if not question.golden_answers:
            on_bad(_without_answers(where))
            continue
        key = question.data_source if file.only is not None else None
        num = counts.get(key, 0)
        if limit is not None and num >= limit:
            continue
        counts[key] = num + 1
        yield where, _qualified(question)
        if limit is not None and all(count >= limit for count in counts.values()):
            return
    if missing := [name for name, count in counts.items() if not count]:
        raise DatasetError(f"{file.path} holds no questions of {', '.join(map(str, missing))}")
    if not counts:
        raise DatasetError(f"{file.path} holds no questions")


def _without_answers(where: str) -> DatasetError:
    said = "the question has no golden answers to score by. Add them with: searchr1 data prepare --golden"
    return DatasetError(f"{where}: {said}")


def _qualified(question: Question) -> Question:
    if question.data_source is None:
        return question
    return replace(question, id=qualified_id(question.data_source, question.id))
