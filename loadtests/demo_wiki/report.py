"""The report: how many answers were right, and every one of them, right and wrong."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median

from loadtests.demo_wiki.asking import Said
from loadtests.demo_wiki.questions import Question
from searchr1.evaluation.report import wilson_interval

_HEAD = """# The Wikipedia demo, asked fifty questions

This page shows what `make demo-wiki` says to fifty questions about people, places, works and science, right and wrong.
It is written by

```console
$ make demo-wiki
$ .venv/bin/python -m loadtests.demo_wiki --url http://127.0.0.1:8000
```

The questions are [our own](../../loadtests/demo_wiki/questions.jsonl), written from general knowledge before the demo
was ever asked one; the leads answer all of them, and no question of a training set is among them. Each is asked once,
greedily. *Right* is exact match with one of the answers that count, articles, case and punctuation aside; *within*: one
of them is part of what it said; *read*: one of them stood in a passage that it read.
"""


def report(about: str, questions: Sequence[Question], answers: Sequence[Said], at: str) -> str:
    """Return the page. ``about`` is what the demo said of itself, ``at`` where and when it was asked."""
    by_id = {answer.id: answer for answer in answers}
    pairs = [(question, by_id[question.id]) for question in questions if question.id in by_id]
    kinds = list(dict.fromkeys(question.kind for question in questions))
    groups: list[tuple[str, Callable[[Question], bool]]] = [
        *((kind, lambda question, kind=kind: question.kind == kind) for kind in kinds),
        ("one article answers it", lambda question: len(question.titles) == 1),
        ("two articles do", lambda question: len(question.titles) > 1),
    ]
    rows = [_scores(name, [said for question, said in pairs if chosen(question)]) for name, chosen in groups]
    every = [said for _, said in pairs]
    low, high = wilson_interval(sum(said.right for said in every), len(every))
    seconds = [said.seconds for said in every]
    times = f"Median {median(seconds):.1f} s an answer, longest {max(seconds):.1f} s, with others asked beside it."
    lines = [
        _HEAD,
        f"What it said of itself: “{about}”\n",
        f"{at.strip()} {times}\n",
        "| | questions | right | within | read | searches an answer | no answer |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *rows,
        _scores("**all**", every),
        f"\nRight: {sum(said.right for said in every)} of {len(every)} (95 %: {low:.2f}–{high:.2f}).\n",
        "## Right\n",
        *_answers((question, said) for question, said in pairs if said.right),
        "\n## Wrong\n",
        *_answers((question, said) for question, said in pairs if not said.right),
    ]
    return "\n".join(lines) + "\n"


def _scores(name: str, answers: Sequence[Said]) -> str:
    counts = (
        len(answers),
        sum(said.right for said in answers),
        sum(said.contains for said in answers),
        sum(said.found for said in answers),
        f"{fmean(len(said.queries) for said in answers):.2f}" if answers else "",
        sum(said.answer is None for said in answers),
    )
    return f"| {name} | {' | '.join(map(str, counts))} |"


def _answers(pairs: Iterable[tuple[Question, Said]]) -> list[str]:
    rows = [
        f"| {_cell(question.question)} | {_said(said)} | {_cell(question.golden_answers[0])} "
        f"| {_cell('; '.join(said.queries)) or '(none)'} | {'yes' if said.found else 'no'} |"
        for question, said in pairs
    ]
    head = ["| asked | said | right is | searched for | read |", "|---|---|---|---|---|"]
    return [*head, *rows] if rows else ["None."]


def _said(said: Said) -> str:
    return f"({said.status})" if said.answer is None else _cell(said.answer) or "(an empty answer)"


def _cell(text: str, limit: int = 120) -> str:
    """Return ``text`` as a cell of a table: one line, no markup, cut at ``limit`` characters."""
    line = " ".join(text.split())
    cut = line if len(line) <= limit else f"{line[: limit - 1]}…"
    for mark in ("\\", "|", "`", "*", "_", "<", "[", "]"):
        cut = cut.replace(mark, f"\\{mark}")
    return cut


def write_report(path: Path, text: str) -> None:
    """Write the page."""
    path.write_text(text, encoding="utf-8")
