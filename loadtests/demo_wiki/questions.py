"""The questions: fifty of our own about people, places, works and science, and whether the leads can answer them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from searchr1.evaluation.metrics import normalize
from searchr1.files import read_json_lines

FILE = Path(__file__).parent / "questions.jsonl"
"""Written from general knowledge, for this demo; no training set has one of them."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the answers that count as right."""

    id: str
    kind: str
    """people, places, works, science."""
    question: str
    golden_answers: tuple[str, ...]
    titles: tuple[str, ...]
    """The articles that answer it; where they are two, the first leads to the second for most of the questions."""


def read_questions(path: Path = FILE) -> list[Question]:
    """Return the questions of a file, in its order. Raises ``DatasetError``."""
    return [question for _, question in read_json_lines(path, TypeAdapter(Question))]


def unanswerable(question: Question, leads: Mapping[str, str]) -> str | None:
    """Return why ``leads``, texts by title, do not answer a question, or None where they do."""
    missing = [title for title in question.titles if title not in leads]
    if missing:
        return f"no article {', '.join(missing)}"
    texts = [f" {normalize(f'{title}: {leads[title]}')} " for title in question.titles]
    if any(f" {normalize(answer)} " in text for answer in question.golden_answers for text in texts):
        return None
    return f"none of {', '.join(question.golden_answers)} stands in {', '.join(question.titles)}"
