"""The studies' part of the page: for each its question, a table of its arms with their spread, and its curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from loadtests.seven.kept import Place, read_places
from loadtests.studies.plan import STUDIES, Arm, Run, Study, runs_of, world_named
from loadtests.studies.running import read_done
from loadtests.studies.scoring import read_scores, scores_folder, start_named
from searchr1.evaluation.bootstrap import Scored, paired_difference, share_interval
from searchr1.trainer.curves import plot_runs, read_run
from searchr1.trainer.metrics import FILE

CURVES = (
    ("reward_mean", "Reward, training rollouts"),
    ("eval_em", "Exact match, held out, greedy"),
    ("sampled_tokens", "Response length, training rollouts"),
    ("searches", "Valid searches, training rollouts"),
)
"""Metrics that are drawn, with their titles; the paper draws the same."""
_DASH = "–"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the runs of one arm."""

    arm: Arm
    runs: tuple[Run, ...]
    """Those that are done."""
    num_planned: int
    scores: Mapping[str, Scored]
    """Test questions by id: the share of the seeds that answered each rightly."""
    by_seed: tuple[float, ...]
    """Share of the test questions that each seed answered rightly."""
    searches: float | None


def studies_section(out: Path | None, docs: Path) -> str:
    """Return the section, and draw its pictures into ``docs``; without a folder it says that nothing was run."""
    if out is None:
        return "## Studies\n\nNot run yet: `python -m loadtests.studies` has them all."
    places = read_places(scores_folder(out))
    parts = [_study_part(study, out, docs, places) for study in STUDIES]
    missing = [study.name for study, part in zip(STUDIES, parts, strict=True) if not part]
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    head = (
        "## Studies\n\nEach arm is trained with several seeds; `python -m loadtests.studies` has the plan and goes on "
        "where it was interrupted. **Test EM** is over test questions that no run saw, greedy: the mean over seeds "
        "with a 95 % interval that draws whole articles or countries again, then the standard deviation over seeds. "
        "**Against the first arm** is paired, question by question."
    )
    return "\n\n".join([head, *filter(None, parts)])


def _study_part(study: Study, out: Path, docs: Path, places: Mapping[str, Place]) -> str:
    """Return the part of one study; nothing where none of its runs is done."""
    outcomes = [_outcome(study, arm, out, places) for arm in study.arms]
    if not any(outcome.runs for outcome in outcomes):
        return ""
    parts = [f"### {study.name}", study.asks, arms_table(study, outcomes, out, places), _command(outcomes, out)]
    curved = {
        outcome.arm.label: [folder for run in outcome.runs if _has_curves(folder := run.folder(out))]
        for outcome in outcomes
    }
    if any(curved.values()):
        picture = f"seven-{study.name}.png"
        plot_runs({label: folders for label, folders in curved.items() if folders}, docs / picture, metrics=CURVES)
        parts.append(f"![Curves: mean and range over seeds]({picture})")
    return "\n\n".join(parts)


def _command(outcomes: Sequence[Outcome], out: Path) -> str:
    """Tell the command of the first run that is done; the others differ in what tells the arms apart, and in seeds."""
    done = next(done for outcome in outcomes for run in outcome.runs if (done := read_done(run.folder(out))))
    seeds = sorted({run.seed for outcome in outcomes for run in outcome.runs})
    return f"Seeds {', '.join(map(str, seeds))}. A run: `{done.command}`."


def _has_curves(folder: Path) -> bool:
    """Return whether a run has rewards to draw; a fine-tuning has none."""
    return (folder / FILE).is_file() and any(record.get("reward_mean") is not None for record in read_run(folder))


def _outcome(study: Study, arm: Arm, out: Path, places: Mapping[str, Place]) -> Outcome:
    planned = [run for run in runs_of(study) if run.arm == arm]
    runs = tuple(run for run in planned if read_done(run.folder(out)) is not None)
    scored = [records for run in runs if (records := read_scores(out, run.name))]
    right: dict[str, list[bool]] = {}
    for records in scored:
        for record in records:
            right.setdefault(record.id, []).append(record.exact_match)
    searches = [record.searches for records in scored for record in records]
    return Outcome(
        arm,
        runs,
        len(planned),
        {asked: _scored(fmean(values), places[asked]) for asked, values in right.items() if asked in places},
        tuple(fmean(record.exact_match for record in records) for records in scored),
        fmean(searches) if searches else None,
    )


def _scored(value: float, place: Place) -> Scored:
    return Scored(value, f"{place.set} {place.cluster}")


def arms_table(study: Study, outcomes: Sequence[Outcome], out: Path, places: Mapping[str, Place]) -> str:
    """Return a table: a row for the start, then one for each arm."""
    lines = [
        "| arm | runs done | steps | hours | test EM | sd over seeds | against the first arm | searches per answer |",
        "|---|---|---|---|---|---|---|---|",
        _start_line(study, out, places),
    ]
    first = outcomes[0]
    for outcome in outcomes:
        against = _DASH
        if outcome is not first and outcome.scores.keys() & first.scores.keys():
            found = paired_difference(outcome.scores, first.scores)
            against = f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        steps, hours = _spent(outcome, out)
        cells = [
            outcome.arm.label,
            f"{len(outcome.runs)} of {outcome.num_planned}",
            steps,
            hours,
            _share(outcome.scores),
            f"{stdev(outcome.by_seed):.3f}" if len(outcome.by_seed) > 1 else _DASH,
            against,
            _DASH if outcome.searches is None else f"{outcome.searches:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    clusters = world_named(study.world).clusters
    num = len(first.scores)
    told = f"{num:,} test questions, drawn by {clusters}." if num else "Not scored yet."
    return "\n".join(lines) + f"\n\n{told}"


def _start_line(study: Study, out: Path, places: Mapping[str, Place]) -> str:
    records = read_scores(out, start_named(study.world, study.start, 3))
    scores = {
        record.id: _scored(float(record.exact_match), places[record.id]) for record in records if record.id in places
    }
    searches = f"{fmean(record.searches for record in records):.2f}" if records else _DASH
    return f"| the start | {_DASH} | 0 | {_DASH} | {_share(scores)} | {_DASH} | {_DASH} | {searches} |"


def _share(scores: Mapping[str, Scored]) -> str:
    if not scores:
        return _DASH
    interval = share_interval(list(scores.values()))
    return f"{interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _spent(outcome: Outcome, out: Path) -> tuple[str, str]:
    """Return the steps of an arm's runs, and the mean hours of one."""
    ends = [
        records[-1]
        for run in outcome.runs
        if (run.folder(out) / FILE).is_file() and (records := read_run(run.folder(out)))
    ]
    steps = sorted({int(end["step"] or 0) for end in ends})
    hours = [elapsed / 3600 for end in ends if (elapsed := end.get("elapsed_s")) is not None]
    told = "–".join(str(step) for step in (steps[:1] + steps[-1:] if len(steps) > 1 else steps)) or _DASH
    return told, f"{fmean(hours):.2f}" if hours else _DASH
