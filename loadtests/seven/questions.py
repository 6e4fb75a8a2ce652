"""Questions of the table, read by path: each with its set, the article that it is about, and its gold passages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from searchr1.data.questions import Question, Text, qualified_id
from searchr1.data.sets import set_named
from searchr1.evaluation.metrics import normalize
from searchr1.files import read_json_lines

_YES_NO = {"yes", "no"}


@dataclass(frozen=True, slots=True)
class _Line:
    """The part of a line that is read, whatever else it holds."""

    id: Text
    question: Text
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)]
    dataset: str
    hops: int | None = None
    type: str | None = None
    gold_ids: tuple[str, ...] = ()
    supporting_titles: tuple[str, ...] = ()
    evidence_titles: tuple[str, ...] = ()


_LINE = TypeAdapter(_Line)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what else the table must know of it."""

    question: Question
    """Its ``data_source`` is one of the paper's sets, or what the file calls another."""
    cluster: str
    """What questions of its set that are answered alike share: an article, or articles that questions tie together."""
    is_yes_no: bool = False
    gold_ids: tuple[str, ...] = ()
    """Ids of the passages that answer it, where its set says them."""
    titles: tuple[str, ...] = ()
    """Titles of the articles that answer it."""


def read_questions(path: Path) -> list[Asked]:
    """Return the questions of a file such as ``test.jsonl.gz``, in its order.

    Raises:
        DatasetError: the file can't be read, or a line is malformed.
    """
    lines = [line for _, line in read_json_lines(path, _LINE)]
    sources = [set_named(line.dataset) or line.dataset for line in lines]
    titles = [line.supporting_titles or line.evidence_titles for line in lines]
    named = [f"{source}\n{title}" for source, line in zip(sources, titles, strict=True) for title in line]
    tied = Tied(named)
    for source, line in zip(sources, titles, strict=True):
        tied.tie(f"{source}\n{title}" for title in line)
    return [
        Asked(
            Question(qualified_id(source, line.id), line.question, line.golden_answers, line.hops, line.type, source),
            cluster=tied.name_of(f"{source}\n{about[0]}").partition("\n")[2] if about else line.id,
            is_yes_no={normalize(answer) for answer in line.golden_answers} <= _YES_NO,
            gold_ids=line.gold_ids,
            titles=about,
        )
        for source, line, about in zip(sources, lines, titles, strict=True)
    ]


def sampled(questions: Sequence[Asked], per_set: int | None, seed: int = 0) -> list[Asked]:
    """Return ``per_set`` questions of each set, or all of them: not the first ones, but the same each time."""
    if per_set is None:
        return list(questions)
    by_set: dict[str | None, list[Asked]] = {}
    for one in questions:
        by_set.setdefault(one.question.data_source, []).append(one)

    def place(one: Asked) -> str:
        return sha256(f"{seed} {one.question.id}".encode()).hexdigest()

    chosen = {one.question.id for group in by_set.values() for one in sorted(group, key=place)[:per_set]}
    return [one for one in questions if one.question.id in chosen]


class Tied:
    """Names in groups: those that were tied together, over however many steps, are one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def tie(self, names: Iterable[str]) -> None:
        """Make one group of ``names``."""
        roots = sorted({self.name_of(name) for name in names})
        for other in roots[1:]:
            self._parent[other] = roots[0]

    def name_of(self, name: str) -> str:
        """Return the name of its group: the first one by the alphabet."""
        while self._parent[name] != name:
            name = self._parent[name]
        return name
