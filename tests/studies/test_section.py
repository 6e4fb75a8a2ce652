"""The studies' part of the page, of invented runs: spread over seeds, paired differences, curves, what is missing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from loadtests.seven.kept import write_places
from loadtests.seven.questions import Asked
from loadtests.studies.plan import STUDIES, Run, Study, runs_of
from loadtests.studies.report import studies_section
from loadtests.studies.running import DONE, Done
from loadtests.studies.scoring import scores_file, scores_folder, start_named
from searchr1.data.questions import Question
from searchr1.evaluation.records import Record, RecordFile

STUDY = next(study for study in STUDIES if study.name == "controls-atlas-weak")
ASKED = tuple(
    Asked(Question(f"atlas-{n}", f"What is {n}?", ("Mali",), 1, None, "atlas"), cluster=f"country {n // 4}")
    for n in range(40)
)


def write_run(out: Path, run: Run, *, gain: float) -> None:
    """Write a run that is done: its metrics, but of a fine-tuning a loss alone."""
    folder = run.folder(out)
    folder.mkdir(parents=True)
    (folder / DONE).write_text(json.dumps(asdict(Done("python train", run.seed, 0.0, 60.0))))
    lines: list[dict[str, float]] = [{"step": float(step), "loss": 1.0} for step in range(3)]
    if run.arm.algorithm != "sft":
        lines = [
            {"step": float(step), "reward_mean": gain * step, "eval_em": gain * step, "elapsed_s": 1800.0 * step}
            for step in range(3)
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_scores(out: Path, name: str, right: Sequence[bool], searches: int) -> None:
    with RecordFile(scores_file(out, name)) as file:
        for asked, is_right in zip(ASKED, right, strict=True):
            question = asked.question
            file.append(
                Record(
                    id=question.id,
                    question=question.question,
                    golden_answers=question.golden_answers,
                    hops=1,
                    kind=None,
                    options={},
                    extractor="own",
                    status="completed",
                    wall_s=0.1,
                    answer="Mali",
                    exact_match=is_right,
                    sub_exact_match=is_right,
                    searches=searches,
                )
            )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two seeds of GRPO, which answer 30 and 32 of 40; one of a random reward, with 8; a start, with 4."""
    write_places(scores_folder(tmp_path), ASKED)
    write_scores(tmp_path, start_named("atlas", "weak", 3), [n < 4 for n in range(40)], 1)
    by_arm = {
        ("GRPO", 0): [n < 30 for n in range(40)],
        ("GRPO", 1): [n < 32 for n in range(40)],
        ("random reward", 0): [n < 8 for n in range(40)],
    }
    for run in runs_of(STUDY):
        if (right := by_arm.get((run.arm.label, run.seed))) is not None:
            write_run(tmp_path, run, gain=sum(right) / 100)
            write_scores(tmp_path, run.name, right, 2)
    return tmp_path


def cells(section: str, label: str) -> list[str]:
    [line] = [line for line in section.splitlines() if line.startswith(f"| {label} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_arms_have_their_spread_and_their_distance_from_the_first(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    section = studies_section(out, tmp_path)
    part = section.split(f"### {STUDY.name}\n")[1].split("\n### ")[0]
    grpo, random = cells(part, "GRPO"), cells(part, "random reward")
    assert grpo[1:4] == ["2 of 3", "2", "1.00"]
    assert grpo[4].startswith("0.775 (")
    assert grpo[5:] == ["0.035", "–", "2.00"]
    assert random[1] == "1 of 3"
    # 8 of 40 in place of 31.
    assert random[6].startswith("-0.575 (-")
    assert random[5] == "–"
    assert cells(part, "clean fine-tuning")[1:] == ["0 of 3", *["–"] * 6]
    assert cells(part, "the start")[4].startswith("0.100 (")
    assert "40 test questions, drawn by country." in part
    picture = tmp_path / f"seven-{STUDY.name}.png"
    assert f"]({picture.name})" in part
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_was_not_run_is_told(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    section = studies_section(out, tmp_path)
    assert "### mask-ppo-atlas-weak" not in section
    assert "mask-ppo-atlas-weak" in section.splitlines()[-1]
    # The plain run of GRPO is shared, so the study of its mask has an arm.
    assert "### mask-grpo-atlas-weak" in section
    assert studies_section(None, tmp_path).endswith("`python -m loadtests.studies` has them all.")


def test_a_fine_tuning_has_no_curve(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = next(run for run in runs_of(STUDY) if run.arm.algorithm == "sft")
    write_run(out, run, gain=0)
    part = studies_section(out, tmp_path).split(f"### {STUDY.name}\n")[1]
    assert cells(part.split("\n### ")[0], "clean fine-tuning")[1:4] == ["1 of 3", "2", "–"]


def test_a_study_without_scores_says_so(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    study: Study = STUDY
    write_run(tmp_path, next(runs_of(study)), gain=0.1)
    part = studies_section(tmp_path, tmp_path).split(f"### {study.name}\n")[1]
    assert "Not scored yet." in part
    assert cells(part.split("\n### ")[0], "GRPO")[4] == "–"
