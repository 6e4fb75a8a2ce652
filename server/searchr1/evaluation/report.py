"""The report of an evaluation: numbers over records, and the tables that print them."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from searchr1.data.sets import TITLES
from searchr1.evaluation.records import Extractor, Record
from searchr1.files import whole_file
from searchr1.printable import one_line, printable

SEARCH = "search"
CLOSED_BOOK = "closed book"

_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Group:
    """Scores of some of the questions. Failed runs count as wrong and as without an answer."""

    num_questions: int
    exact_match: float
    """Share of the questions, as all scores here."""
    sub_exact_match: float
    no_answer: float
    mean_searches: float
    """Searches per run, over the runs that did not fail."""


@dataclass(frozen=True, slots=True)
class SetAverage:
    """The plain mean over sets, however many questions each has: the last column of the paper's table."""

    num_sets: int
    exact_match: float
    sub_exact_match: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One pass over the questions. Means are per run, over the runs that did not fail."""

    name: str
    options: dict[str, Any]
    """Options that the gateway was given; the others were its own choice."""
    extractor: Extractor
    models: tuple[str, ...]
    overall: Group
    by_hops: dict[str, Group]
    by_kind: dict[str, Group]
    by_set: dict[str, Group]
    """Scores by data source, in the paper's order; empty where no question names its own."""
    set_average: SetAverage | None
    """Mean over the sets; None where fewer than two were asked."""
    statuses: dict[str, int]
    exact_match_interval: tuple[float, float]
    """Wilson's 95 % interval for ``overall.exact_match``."""
    mean_turns: float
    mean_prompt_tokens: float
    mean_completion_tokens: float
    mean_observation_tokens: float
    mean_cached_tokens: float
    mean_failed_searches: float
    mean_invalid_turns: float
    mean_run_s: float
    """Seconds of one request, as the client saw it."""
    num_asked: int
    """Questions asked now; the others were in the results file."""
    wall_s: float
    """Seconds in which they were asked."""

    @property
    def num_failed(self) -> int:
        """Runs that the system failed, not the model; they count as wrong."""
        return self.statuses.get("failed", 0)

    @property
    def sampling(self) -> str:
        """The way tokens were chosen, in words."""
        temperature = self.options.get("temperature")
        if temperature == 0:
            return "greedy (temperature 0)"
        if temperature is None:
            return "at the server's own temperature"
        others = [f"{name} {self.options[name]}" for name in ("top_p", "seed") if name in self.options]
        return f"sampled ({', '.join([f'temperature {temperature}', *others])})"


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation: the questions with search and, where asked for, without."""

    dataset: str
    split: str
    url: str
    searching: Summary
    closed_book: Summary | None

    @property
    def passes(self) -> tuple[Summary, ...]:
        """All passes over the questions."""
        return (self.searching,) if self.closed_book is None else (self.searching, self.closed_book)

    def to_json(self) -> str:
        """Return everything, for files."""
        value = asdict(self)
        for name in ("searching", "closed_book"):
            summary: Summary | None = getattr(self, name)
            if summary is not None:
                value[name]["sampling"] = summary.sampling
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

    def write_beside(self, results: Path | None) -> None:
        """Write ``….summary.json`` beside a file of results, where one is kept. Raises ``ConfigurationError``."""
        if results is not None:
            with whole_file(results.with_suffix(".summary.json")) as file:
                file.write(self.to_json().encode())


def summarize(
    name: str,
    records: Sequence[Record],
    *,
    options: dict[str, Any],
    extractor: Extractor,
    num_asked: int,
    wall_s: float,
) -> Summary:
    """Sum up at least one record."""
    ran = [record for record in records if not record.failed]
    by_set = _by_set(records)

    def mean(value: Callable[[Record], float]) -> float:
        return fmean(map(value, ran)) if ran else 0.0

    return Summary(
        name=name,
        options=options,
        extractor=extractor,
        models=tuple(sorted({record.model for record in records if record.model is not None})),
        overall=_group(records),
        by_hops=_grouped(records, lambda record: _hops(record.hops)),
        by_kind=_grouped(records, lambda record: record.kind or "no kind"),
        by_set=by_set,
        set_average=_average(by_set),
        statuses=dict(Counter(record.status for record in records).most_common()),
        exact_match_interval=wilson_interval(sum(record.exact_match for record in records), len(records)),
        mean_turns=mean(lambda record: record.turns),
        mean_prompt_tokens=mean(lambda record: record.prompt_tokens),
        mean_completion_tokens=mean(lambda record: record.completion_tokens),
        mean_observation_tokens=mean(lambda record: record.observation_tokens),
        mean_cached_tokens=mean(lambda record: record.cached_tokens),
        mean_failed_searches=mean(lambda record: record.failed_searches),
        mean_invalid_turns=mean(lambda record: record.invalid_turns),
        mean_run_s=mean(lambda record: record.wall_s),
        num_asked=num_asked,
        wall_s=wall_s,
    )


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval for a share.

    >>> tuple(round(bound, 3) for bound in wilson_interval(300, 500))
    (0.556, 0.642)
    """
    share, spread = successes / total, _Z95**2 / total
    center = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, center - half), min(1.0, center + half)


def print_report(report: Report, *, by_kind: bool = False, console: Console | None = None) -> None:
    """Print the scores by hops (and by kind), then the costs; a closed-book pass stands beside the other."""
    console = console or Console()
    main = report.searching
    low, high = main.exact_match_interval
    title = f"{report.dataset} {report.split}" if report.dataset == "atlas" else report.dataset
    console.print(
        f"{one_line(title)}: {main.overall.num_questions} questions, {main.sampling}", highlight=False, markup=False
    )
    models = printable(", ".join(main.models)) or "unknown (no run came back)"
    console.print(f"model {models}; answers read by the {main.extractor} extractor", highlight=False, markup=False)
    console.print(_scores(report, by_kind=by_kind))
    console.print(f"EM {main.overall.exact_match:.3f}, 95 % interval {low:.3f} to {high:.3f}", highlight=False)
    console.print(_costs([main] if report.closed_book is None else [main, report.closed_book]))


def _scores(report: Report, *, by_kind: bool) -> Table:
    main, closed = report.searching, report.closed_book
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("questions", overflow="fold")
    headers = ["n", "EM", "sub-EM", "searches\nper run", "no\nanswer"]
    if closed is not None:
        headers += ["closed-\nbook EM", "closed-\nbook sub"]
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)

    def row(name: str, group: Group, other: Group | None) -> None:
        cells = [
            f"{group.num_questions}",
            f"{group.exact_match:.3f}",
            f"{group.sub_exact_match:.3f}",
            f"{group.mean_searches:.2f}",
            f"{group.no_answer:.1%}",
        ]
        if other is not None:
            cells += [f"{other.exact_match:.3f}", f"{other.sub_exact_match:.3f}"]
        # Names of sets and kinds come from files: they are neither markup nor control codes.
        table.add_row(Text(one_line(name)), *cells)

    row("all", main.overall, closed.overall if closed else None)
    for name, group in main.by_hops.items() if main.by_hops.keys() != {_NO_HOPS} else ():
        row(name, group, closed.by_hops[name] if closed else None)
    if main.set_average is not None:
        table.add_section()
        for name, group in main.by_set.items():
            row(TITLES.get(name, name), group, closed.by_set[name] if closed else None)
        table.add_row(*_average_cells(main.set_average, closed.set_average if closed else None))
    if by_kind:
        table.add_section()
        for name, group in main.by_kind.items():
            row(name, group, closed.by_kind[name] if closed else None)
    return table


_COSTS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("searches per run", lambda s: f"{s.overall.mean_searches:.2f}"),
    ("runs with no answer", lambda s: f"{s.overall.no_answer:.1%}"),
    ("statuses", lambda s: ", ".join(f"{status} {count}" for status, count in s.statuses.items())),
    ("turns per run", lambda s: f"{s.mean_turns:.2f}"),
    ("invalid turns per run", lambda s: f"{s.mean_invalid_turns:.2f}"),
    ("failed searches per run", lambda s: f"{s.mean_failed_searches:.2f}"),
    ("prompt tokens per run", lambda s: f"{s.mean_prompt_tokens:.1f}"),
    ("generated tokens per run", lambda s: f"{s.mean_completion_tokens:.1f}"),
    ("observed tokens per run", lambda s: f"{s.mean_observation_tokens:.1f}"),
    ("cached tokens per run", lambda s: f"{s.mean_cached_tokens:.1f}"),
    ("seconds per run", lambda s: f"{s.mean_run_s:.2f}"),
    ("wall time", lambda s: f"{s.wall_s:.1f} s for {s.num_asked} questions"),
)


def _costs(summaries: Iterable[Summary]) -> Table:
    summaries = list(summaries)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("means leave out failed runs", no_wrap=True)
    for summary in summaries:
        table.add_column(summary.name, justify="right")
    for name, cell in _COSTS:
        table.add_row(name, *map(cell, summaries))
    return table


def _group(records: Sequence[Record]) -> Group:
    ran = [record for record in records if not record.failed]
    return Group(
        num_questions=len(records),
        exact_match=fmean(record.exact_match for record in records),
        sub_exact_match=fmean(record.sub_exact_match for record in records),
        no_answer=fmean(record.answer is None for record in records),
        mean_searches=fmean(record.searches for record in ran) if ran else 0.0,
    )


def _grouped(records: Sequence[Record], key: Callable[[Record], str]) -> dict[str, Group]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: _group(groups[name]) for name in sorted(groups)}


def _by_set(records: Sequence[Record]) -> dict[str, Group]:
    named = [record for record in records if record.data_source is not None]
    groups = _grouped(named, lambda record: record.data_source or "")
    order = {name: place for place, name in enumerate(TITLES)}
    return {name: groups[name] for name in sorted(groups, key=lambda name: (order.get(name, len(order)), name))}


def _average(groups: dict[str, Group]) -> SetAverage | None:
    if len(groups) < 2:
        return None
    exact, sub = zip(*((group.exact_match, group.sub_exact_match) for group in groups.values()), strict=True)
    return SetAverage(len(groups), fmean(exact), fmean(sub))


def _average_cells(average: SetAverage, closed: SetAverage | None) -> list[str]:
    cells = [f"average of {average.num_sets} sets", "", f"{average.exact_match:.3f}", f"{average.sub_exact_match:.3f}"]
    if closed is not None:
        cells += ["", "", f"{closed.exact_match:.3f}", f"{closed.sub_exact_match:.3f}"]
    return cells


_NO_HOPS = "hops not given"


def _hops(hops: int | None) -> str:
    if hops is None:
        return _NO_HOPS
    return f"{hops} hop" if hops == 1 else f"{hops} hops"
