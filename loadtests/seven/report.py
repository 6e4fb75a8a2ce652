"""The page: tables of all rows, comparisons, the way to the ceiling, and what each row was made with."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from loadtests.seven import scores
from loadtests.seven.kept import Kept
from loadtests.seven.pictures import draw_averages, draw_hops
from loadtests.seven.rows import COMPARISONS, ROWS
from loadtests.seven.scores import Answered, Measured, Number, Results, compared, read_results
from loadtests.studies.report import studies_section
from searchr1.data.sets import SETS, TITLES
from searchr1.evaluation.bootstrap import Interval
from searchr1.evaluation.table.paper import PaperModel, paper_rows
from searchr1.files import whole_file

HOPS = (1, 2, 3, 4)
_PAPER: tuple[PaperModel, ...] = ("qwen2.5-7b", "qwen2.5-3b")
_DASH = "–"
_OTHER_TITLES = {"squad": "SQuAD"}
_HEAD = """# The paper's seven sets

This page has the paper's main table for a small pretrained model on real questions and real Wikipedia passages, the
paper's studies, and how all of it was made. It is written by

```console
$ python -m loadtests.seven prepare OUT --corpus CORPUS --encoder MINILM
$ python -m loadtests.seven run OUT --questions QUESTIONS --corpus CORPUS --bm25 index:OUT/bm25 \\
    --dense 'dense:OUT/dense?encoder=MINILM' --checkpoint base=DIR --checkpoint grpo=DIR …
$ python -m loadtests.studies run STUDIES …
$ python -m loadtests.seven report OUT --studies STUDIES
```

which go on where they were interrupted. OUT holds what was asked and answered; none of it is in this repository, and
[seven.json](seven.json) has the scores alone. [The guide](../guides/evaluation.md#the-papers-table-on-real-questions)
says what the files hold, and where they can be had.
"""
_METHOD = """## How to read it

* **Exact match** as [the reference scores it](../guides/evaluation.md). Sub-exact match is looser: a golden answer
  inside the answer is enough. A run that the system failed is wrong.
* **The average** is the mean of the seven sets, each counted once. Questions that ask for yes or no, which a guess
  gets half of, and other sets stand in columns of their own and are in no average.
* **Intervals** are 95 %, of a bootstrap that draws whole articles: questions about one article, or about articles that
  questions tie together, are answered alike. Differences are paired, question by question. Where no answer is right
  the interval is Wilson's over articles.
* **Greedy** is one answer a question at temperature 0; **sampled** is the mean over answers at temperature 1.
* **Gold passages**: RAG with the passages that answer the question in the place of what a search finds. Where a set
  names articles only (TriviaQA, Bamboogle), their passages that hold an answer.
* **The paper's rows** (arXiv 2503.09516, read through a transcription: check a number before citing it) are Qwen2.5
  models on all of Wikipedia and on other, larger samples of these sets. They show the order of the methods, and are no
  mark to beat.
* The corpus is denser in answers than Wikipedia, so a search finds more than it would there.
"""


def write_report(out: Path, docs: Path, studies: Path | None = None) -> Path:
    """Write ``seven.md``, ``seven.json`` and the pictures into ``docs``; return the page.

    Raises:
        ValueError: nothing was measured.
        DatasetError: a file of records can't be read.
    """
    results = read_results(out)
    docs.mkdir(parents=True, exist_ok=True)
    draw_averages(results, docs / "seven.png")
    draw_hops(results, docs / "seven-hops.png")
    page = docs / "seven.md"
    with whole_file(page) as file:
        file.write(page_of(results, studies_section(studies, docs)).encode())
    with whole_file(docs / "seven.json") as file:
        file.write(json.dumps(scores_alone(results), indent=1).encode() + b"\n")
    return page


def page_of(results: Results, studies: str = "") -> str:
    """Return the page."""
    parts = [
        _HEAD,
        _questions(results),
        "## Exact match, greedy\n\n" + scores_table(results, lambda one: one.greedy, scores.exact, with_paper=True),
        "![Averages with their intervals](seven.png)",
        "## Comparisons\n\n" + comparisons_table(results),
        "## By hops\n\n" + hops_table(results),
        "![Exact match and searches by hops](seven-hops.png)",
        "## The way to the ceiling\n\n" + ceiling_table(results),
    ]
    if any(one.sampled for one in results.rows):
        table = scores_table(results, lambda one: one.sampled, scores.exact)
        parts.append(f"## Exact match, sampled\n\n{table}")
    parts += [
        "## Sub-exact match, greedy\n\n" + scores_table(results, lambda one: one.greedy, scores.sub),
        studies,
        _METHOD.rstrip(),
        "## What it was made with\n\n" + made_table(results),
        _not_measured(results),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def scores_table(
    results: Results, answers: Callable[[Measured], dict[str, Answered]], number: Number, *, with_paper: bool = False
) -> str:
    """Return a table: rows are methods, columns the sets, their average with its interval, and what stands apart."""
    others = results.other_sets
    titles = [*(TITLES[name] for name in SETS), "average", *map(_title, others), "yes/no"]
    lines = [["method", "retriever", *titles], ["---", "---", *["--:"] * len(titles)]]
    for one in results.rows:
        found = answers(one)
        if not found:
            continue
        cells = [results.average(found, number, scores.in_set(name)) for name in SETS]
        apart = [results.average(found, number, scores.in_set(name)) for name in others]
        apart.append(results.pooled(found, number, scores.is_yes_no))
        average = results.average(found, number, scores.in_seven)
        lines.append(
            [one.row.title, one.row.retriever_title, *map(mean, cells), with_interval(average), *map(mean, apart)]
        )
    if with_paper:
        lines += [line for model in _PAPER for line in _paper_lines(model, len(others) + 1)]
    return grid(lines)


def _paper_lines(model: PaperModel, num_apart: int) -> Iterable[list[str]]:
    for row in paper_rows(model):
        cells = [f"{row.exact_match[name]:.3f}" for name in SETS]
        yield [row.name, f"the paper's {model}", *cells, f"{row.average:.3f}", *[_DASH] * num_apart]


def comparisons_table(results: Results) -> str:
    """Return a table of all comparisons, those that were not measured too."""
    lines = [
        ["", "of rows", "questions", "difference", "relative gain", "aimed at", ""],
        ["---", "---", "--:", "--:", "--:", "---", "---"],
    ]
    for versus in COMPARISONS:
        aimed = "above the interval" if versus.goal is None else f"≥ +{versus.goal:.0%}"
        found = compared(results, versus)
        if found is None:
            lines.append([versus.title, _DASH, _DASH, _DASH, _DASH, aimed, "not measured"])
            continue
        gain = _DASH if found.gain is None else signed(found.gain, percent=True)
        lines.append(
            [
                versus.title,
                f"{found.ours} over {found.theirs}",
                f"{found.num_questions:,}",
                signed(found.difference),
                gain,
                aimed,
                found.verdict,
            ]
        )
    return grid(lines)


def hops_table(results: Results) -> str:
    """Return a table of exact match and searches per answer by hops, of the greedy rows."""
    heads = [f"{hops} hop{'s' if hops > 1 else ''}" for hops in HOPS]
    lines = [
        ["method", "retriever", *(f"EM, {head}" for head in heads), *(f"searches, {head}" for head in heads), "all"],
        ["---", "---", *["--:"] * (2 * len(heads) + 1)],
    ]
    for one in results.rows:
        if one.greedy:
            right = [results.pooled(one.greedy, scores.exact, scores.with_hops(hops)) for hops in HOPS]
            counts = [results.pooled(one.greedy, scores.searches, scores.with_hops(hops)) for hops in HOPS]
            whole = results.pooled(one.greedy, scores.searches, scores.in_seven)
            cells = [*map(mean, right), *map(two_digits, [*counts, whole])]
            lines.append([one.row.title, one.row.retriever_title, *cells])
    return grid(lines)


def ceiling_table(results: Results) -> str:
    """Return how far each row gets from direct answers to gold passages, the highest of the ceilings."""
    direct = results.named("direct")
    ceilings = [one for one in results.rows if one.row.searched == "oracle" and one.greedy]
    averages = {one.row.name: results.average(one.greedy, scores.exact, scores.in_seven) for one in results.rows}
    top = max(ceilings, key=lambda one: _mean(averages[one.row.name]), default=None)
    if direct is None or top is None:
        return "Direct answers or gold passages were not measured."
    low, high = _mean(averages["direct"]), _mean(averages[top.row.name])
    told = f"Direct answers have {low:.3f}, the same questions with gold passages {high:.3f} ({top.row.title})."
    if high <= low:
        return f"{told} Passages do not help this model, so there is no way to measure."
    lines = [["method", "retriever", "average", "share of the way"], ["---", "---", "--:", "--:"]]
    for one in results.rows:
        if one.greedy and one not in ceilings:
            average = averages[one.row.name]
            share = (_mean(average) - low) / (high - low)
            lines.append([one.row.title, one.row.retriever_title, mean(average), f"{share:.0%}"])
    return f"{told}\n\n{grid(lines)}"


def made_table(results: Results) -> str:
    """Return what each pass was made with: seed, checkpoint, time; and the commands."""
    lines = [
        ["row", "sampling", "seed", "checkpoint", "SHA-256", "made by", "questions", "failed", "wall time", "measured"],
        ["---", "---", "--:", "---", "---", "---", "--:", "--:", "--:", "---"],
    ]
    commands: dict[str, list[str]] = {}
    for one in results.rows:
        for kept in one.kept:
            commands.setdefault(kept.command, []).append(kept.name)
            lines.append([*_made_cells(kept), str(one.failed.get(kept.sampling, 0)), *_times(kept)])
    told = "\n".join(f"* `{command}`: {', '.join(names)}" for command, names in commands.items())
    facts = list(dict.fromkeys(_machine(kept) for one in results.rows for kept in one.kept))
    return f"{grid(lines)}\n\nCommands:\n\n{told}\n\nMade with: {'; '.join(facts)}."


def _made_cells(kept: Kept) -> list[str]:
    made = ", ".join(filter(None, [kept.made, kept.made_with.get("trained", "")])) or "as it came"
    seed = _DASH if kept.seed is None else str(kept.seed)
    asked = f"{kept.num_questions:,}" + (f" ({kept.per_set} a set)" if kept.per_set is not None else "")
    if kept.num_without_gold:
        asked += f", {kept.num_without_gold} without a gold passage"
    return [kept.row, kept.sampling, seed, kept.model, kept.digest, made, asked]


def _times(kept: Kept) -> list[str]:
    sessions = f" in {len(kept.sessions)} sessions" if len(kept.sessions) > 1 else ""
    return [f"{kept.wall_s / 60:.1f} min{sessions}", "yes" if kept.is_finished else "**not to its end**: no score yet"]


def _machine(kept: Kept) -> str:
    names = ("commit", "vllm", "torch", "transformers", "python", "machine", "engine")
    return ", ".join(f"{name} {value}" for name in names if (value := kept.made_with.get(name)))


def _questions(results: Results) -> str:
    """Say how many questions there are, and how many were asked."""
    counts = [
        f"{_title(name)} {sum(place.set == name for place in results.places.values()):,}"
        for name in (*SETS, *results.other_sets)
    ]
    apart = sum(place.is_yes_no for place in results.places.values())
    clusters = len({(place.set, place.cluster) for place in results.places.values()})
    asked = sorted({len(one.greedy) for one in results.rows if one.greedy})
    told = f"Questions: {', '.join(counts)}; {apart} of them ask for yes or no. They are about {clusters:,} articles."
    if len(asked) > 1:
        told += f" Rows were asked {' or '.join(f'{count:,}' for count in asked)}: those do not compare as they stand."
    if any(kept.per_set is not None for one in results.rows for kept in one.kept):
        told += " **Rows were asked a sample of the questions**, so the intervals are wide."
    return told


def _not_measured(results: Results) -> str:
    there = {one.row.name for one in results.rows}
    missing = [row.name for row in ROWS if row.name not in there]
    return f"Not measured yet: {', '.join(missing)}." if missing else ""


def scores_alone(results: Results) -> dict[str, object]:
    """Return all numbers of the page without a text of any question, answer or passage."""
    rows = []
    for one in results.rows:
        for name, answers in (("greedy", one.greedy), ("sampled", one.sampled)):
            if answers:
                rows.append({"row": one.row.name, "sampling": name} | _numbers(results, answers))
    made = [asdict(kept) | {"wall_s": kept.wall_s} for one in results.rows for kept in one.kept]
    comparisons = [
        {
            "title": found.versus.title,
            "ours": found.ours,
            "theirs": found.theirs,
            "difference": asdict(found.difference),
            "gain": None if found.gain is None else asdict(found.gain),
            "verdict": found.verdict.strip("*"),
        }
        for versus in COMPARISONS
        if (found := compared(results, versus)) is not None
    ]
    return {"rows": rows, "comparisons": comparisons, "made": made}


def _numbers(results: Results, answers: dict[str, Answered]) -> dict[str, object]:
    names = [*SETS, *results.other_sets]
    columns = {name: scores.in_set(name) for name in names} | {"average": scores.in_seven, "yes/no": scores.is_yes_no}
    by_hops = {f"{hops} hops": scores.with_hops(hops) for hops in HOPS}
    return {
        "questions": len(answers),
        "exact_match": {name: _plain(results.average(answers, scores.exact, one)) for name, one in columns.items()},
        "sub_exact_match": {name: _plain(results.average(answers, scores.sub, one)) for name, one in columns.items()},
        "exact_match_by_hops": {name: _plain(results.pooled(answers, scores.exact, o)) for name, o in by_hops.items()},
        "searches_by_hops": {name: _plain(results.pooled(answers, scores.searches, o)) for name, o in by_hops.items()},
        "searches": _plain(results.pooled(answers, scores.searches, scores.in_seven)),
    }


def _title(name: str) -> str:
    return TITLES.get(name) or _OTHER_TITLES.get(name, name)


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {name: round(value, 4) for name, value in asdict(interval).items()}


def _mean(interval: Interval | None) -> float:
    return -1.0 if interval is None else interval.mean


def mean(interval: Interval | None) -> str:
    """Return a mean, with three digits."""
    return _DASH if interval is None else f"{interval.mean:.3f}"


def two_digits(interval: Interval | None) -> str:
    """Return a mean, with two digits."""
    return _DASH if interval is None else f"{interval.mean:.2f}"


def with_interval(interval: Interval | None) -> str:
    """Return a mean with its interval."""
    return _DASH if interval is None else f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def signed(interval: Interval, *, percent: bool = False) -> str:
    """Return a difference with its interval."""
    form = "+.0%" if percent else "+.3f"
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def grid(lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
