"""Questions with what their data set says of the way to the answer: gold passages, titles, and steps.

Rows are those of ``readers.py`` with more fields: ``gold_ids`` (ids of passages in the corpus),
``supporting_titles`` or ``evidence_titles``, and ``question_decomposition``, as MuSiQue's own files have it: questions
of one hop, in which ``#2`` stands for the answer to the second.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter

from searchr1.data.questions import Question
from searchr1.data.readers import read
from searchr1.data.sources import Places, SourceFile, locate
from searchr1.files import read_json_lines
from searchr1.json_texts import is_parquet


@dataclass(frozen=True, slots=True)
class Step:
    """One hop of a question that was put together from several."""

    question: str
    """As it stands in the file: ``When was #1 founded?``, or ``The Collegian >> owned by``."""
    answer: str


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """A question and its evidence, of which any part may be unknown, and then is empty."""

    question: Question
    gold_ids: tuple[str, ...] = ()
    """Ids of passages in the corpus."""
    titles: tuple[str, ...] = ()
    """Titles of the pages that the answer is in, or on the way to it."""
    steps: tuple[Step, ...] = ()


_Texts = Annotated[tuple[str, ...], BeforeValidator(lambda value: value or ())]


@dataclass(frozen=True, slots=True)
class _EvidenceRow:
    id: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)] = ""
    gold_ids: Annotated[
        tuple[str, ...], BeforeValidator(lambda ids: tuple(map(str, ids)) if isinstance(ids, list) else ids or ())
    ] = ()
    supporting_titles: _Texts = ()
    evidence_titles: _Texts = ()
    question_decomposition: Annotated[tuple[Step, ...], BeforeValidator(lambda value: value or ())] = ()


_ROW = TypeAdapter(_EvidenceRow)


def gold_questions(sources: Iterable[str], split: str, steps: Mapping[str, tuple[Step, ...]]) -> Iterator[GoldQuestion]:
    """Yield the questions of ``sources``, as ``searchr1 data prepare`` names them, with the evidence of their rows.

    ``steps`` are by id, for rows without their own. Evidence is read of JSON Lines alone; a parquet file has none.

    Raises:
        DatasetError: a source can't be found or read; file and row are named.
    """
    for file in locate(tuple(sources), Places(split)):
        for found in _with_evidence(file):
            yield found if found.steps else replace(found, steps=steps.get(found.question.id, ()))


def read_steps(path: Path) -> dict[str, tuple[Step, ...]]:
    """Return the ``question_decomposition`` of each row of a file, by id, as MuSiQue publishes it.

    Raises:
        DatasetError: the file can't be read, or a row is malformed.
    """
    rows = (row for _, row in read_json_lines(path, _ROW))
    return {row.id: row.question_decomposition for row in rows if row.id and row.question_decomposition}


def _with_evidence(file: SourceFile) -> Iterator[GoldQuestion]:
    if is_parquet(file.path):
        yield from (GoldQuestion(question) for _, question in read(file))
        return
    rows = {row.id: row for _, row in read_json_lines(file.path, _ROW) if row.id}
    for _, question in read(file):
        row = rows.get(question.id, _EvidenceRow())
        titles = row.supporting_titles or row.evidence_titles
        yield GoldQuestion(question, row.gold_ids, titles, row.question_decomposition)
