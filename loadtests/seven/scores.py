"""Scores of the measured rows, question by question, and the cells of the tables that are made of them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from loadtests.seven.kept import Kept, Place, read_kept, read_places, records_file
from loadtests.seven.measuring import GREEDY
from loadtests.seven.rows import ROWS, Row, Versus
from searchr1.data.sets import SETS
from searchr1.evaluation.bootstrap import Interval, Scored, bootstrap, paired_difference, paired_gain, share_interval
from searchr1.evaluation.records import Record, read_records


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's scores under one row; means over its samples, where it was sampled."""

    exact: float
    sub: float
    searches: float
    answered: float


Number = Callable[[Answered], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row as it was measured."""

    row: Row
    greedy: dict[str, Answered] = field(default_factory=dict)
    """Scores by question id; empty where it was not measured so."""
    sampled: dict[str, Answered] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    failed: dict[str, int] = field(default_factory=dict)
    """Runs that the system failed, by sampling; they count as wrong."""


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that a folder holds."""

    rows: tuple[Measured, ...]
    """In the table's order."""
    places: Mapping[str, Place]

    def named(self, name: str) -> Measured | None:
        """Return the row ``name`` where it has greedy scores."""
        return next((one for one in self.rows if one.row.name == name and one.greedy), None)

    @property
    def other_sets(self) -> list[str]:
        """Sets beside the paper's, which are in no average."""
        return sorted({place.set for place in self.places.values()} - set(SETS))

    def scored(
        self, answers: Mapping[str, Answered], number: Number, chosen: Callable[[Place], bool]
    ) -> dict[str, Scored]:
        """Return a number of the questions that are ``chosen``, with their clusters, by id; a stratum is a set."""
        return {
            asked: Scored(number(one), place.cluster, place.set)
            for asked, one in answers.items()
            if (place := self.places.get(asked)) is not None and chosen(place)
        }

    def average(
        self, answers: Mapping[str, Answered], number: Number, chosen: Callable[[Place], bool]
    ) -> Interval | None:
        """Return the mean over sets of a share; None where no question is chosen."""
        scores = self.scored(answers, number, chosen)
        return share_interval(list(scores.values())) if scores else None

    def pooled(
        self, answers: Mapping[str, Answered], number: Number, chosen: Callable[[Place], bool]
    ) -> Interval | None:
        """Return the mean of a share or a count over questions, whatever their sets; None where none is chosen."""
        scores = self.scored(answers, number, chosen).values()
        together = [Scored(one.value, f"{one.stratum} {one.cluster}") for one in scores]
        if not together:
            return None
        return bootstrap(together) if number is searches else share_interval(together)


def exact(one: Answered) -> float:
    """Return the exact match."""
    return one.exact


def sub(one: Answered) -> float:
    """Return the sub-exact match."""
    return one.sub


def searches(one: Answered) -> float:
    """Return the number of searches."""
    return one.searches


def in_set(name: str) -> Callable[[Place], bool]:
    """Return a choice: the questions of one set that ask for more than yes or no."""
    return lambda place: place.set == name and not place.is_yes_no


def in_seven(place: Place) -> bool:
    """Return whether a question counts in the average."""
    return place.set in SETS and not place.is_yes_no


def with_hops(hops: int) -> Callable[[Place], bool]:
    """Return a choice: the questions of the seven sets with so many hops."""
    return lambda place: in_seven(place) and place.hops == hops


def is_yes_no(place: Place) -> bool:
    """Return whether a question of the seven sets asks for yes or no."""
    return place.set in SETS and place.is_yes_no


def read_results(out: Path) -> Results:
    """Return the results in the folder ``out``.

    Raises:
        ValueError: nothing was measured.
        DatasetError: a file of records can't be read.
    """
    kept = read_kept(out)
    rows = [_measured(out, row, [one for one in kept if one.row == row.name]) for row in ROWS]
    found = tuple(one for one in rows if one.kept)
    if not found:
        raise ValueError(f"{out} has no measured row")
    return Results(found, read_places(out))


def _measured(out: Path, row: Row, kept: Sequence[Kept]) -> Measured:
    # What is under way, or was cut off, has no score yet: its runs may have failed by no fault of the model.
    records = {one.sampling: read_records(records_file(out, one.name)) for one in kept if one.is_finished}
    return Measured(
        row,
        greedy=answers_of(records.get(GREEDY, ())),
        sampled=answers_of(record for name, some in records.items() if name != GREEDY for record in some),
        kept=tuple(kept),
        failed={name: sum(record.failed for record in some) for name, some in records.items()},
    )


def answers_of(records: Iterable[Record]) -> dict[str, Answered]:
    """Return scores by question id, over all records of each."""
    by_id: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_id[record.id].append(record)
    return {asked: _answered(some) for asked, some in by_id.items()}


def _answered(records: Sequence[Record]) -> Answered:
    return Answered(
        exact=fmean(record.exact_match for record in records),
        sub=fmean(record.sub_exact_match for record in records),
        searches=fmean(record.searches for record in records),
        answered=fmean(record.answer is not None for record in records),
    )


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, carried out on the questions that both rows were asked, greedily."""

    versus: Versus
    ours: str
    theirs: str
    difference: Interval
    gain: Interval | None
    """The difference as a share of theirs; None where theirs is next to nothing."""
    num_questions: int

    @property
    def verdict(self) -> str:
        """Whether what is aimed at was reached."""
        goal = self.versus.goal
        if goal is not None:
            reached = self.difference.is_above_zero and (self.gain is None or self.gain.mean >= goal)
            return "reached" if reached else "**missed**"
        if self.difference.is_above_zero:
            return "yes"
        return "**no, the other way**" if self.difference.high < 0 else "not told apart"


def compared(results: Results, versus: Versus) -> Compared | None:
    """Carry out a comparison; None where one of its sides was not measured."""
    ours, theirs = (_best(results, names) for names in (versus.ours, versus.theirs))
    if ours is None or theirs is None:
        return None
    sides = [results.scored(one.greedy, exact, in_seven) for one in (ours, theirs)]
    shared = sides[0].keys() & sides[1].keys()
    if not shared:
        return None
    return Compared(
        versus,
        ours.row.name,
        theirs.row.name,
        paired_difference(sides[0], sides[1]),
        paired_gain(sides[0], sides[1]),
        len(shared),
    )


def _best(results: Results, names: Iterable[str]) -> Measured | None:
    """Return the row with the highest average, of those that were measured."""
    found = [one for name in names if (one := results.named(name)) is not None]

    def average(one: Measured) -> float:
        interval = results.average(one.greedy, exact, in_seven)
        return -1.0 if interval is None else interval.mean

    return max(found, key=average, default=None)
