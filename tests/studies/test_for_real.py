"""A study from its runs to its part of the page, with a random model: trained, gone on with, scored, told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.studies.commands import Choices
from loadtests.studies.plan import STUDIES, all_runs
from loadtests.studies.report import studies_section
from loadtests.studies.running import read_done, run_all
from loadtests.studies.scoring import exam_of, read_scores, score, start_named
from tests.trainer.rl.tiny_run import write_tiny_run

pytestmark = [pytest.mark.torch, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]


def write_atlas(path: Path) -> Path:
    """Write test questions as Atlas has them, about countries that there are not."""
    kinds = (("country-capital", ("Borduria", "Szohod")), ("city-country", ("Klow", "Syldavia")))
    rows = [
        {"id": f"t{n}", "question": f"Where is {n}?", "golden_answers": ["x"], "hops": 1, "kind": k, "entities": e}
        for n, (k, e) in enumerate(kinds * 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


async def test_a_study_is_run_scored_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHR1_ENGINE", "transformers")
    config = write_tiny_run(tmp_path)
    study = next(study for study in STUDIES if study.name == "controls-atlas-weak")
    study = replace(study, arms=study.arms[:2])
    choices = Choices(
        out=tmp_path / "studies",
        scale=0.4,
        configs={"atlas-grpo": str(config)},
        starts={"weak": str(tmp_path / "model")},
        settings={"atlas": ["algorithm=grpo"]},
    )
    runs = all_runs([study], 1)
    told: list[str] = []
    assert await run_all(runs, choices, progress=False, tell=told.append) == [], told
    lines = (runs[1].folder(choices.out) / "metrics.jsonl").read_text("utf-8").splitlines()
    metrics = [json.loads(line) for line in lines]
    assert [line["step"] for line in metrics] == [0, 1, 2]
    done = read_done(runs[1].folder(choices.out))
    assert done is not None
    assert "reward=random" in done.command
    # Of four rollouts each has 0 or 1.
    assert all(4 * line["reward_mean"] == round(4 * line["reward_mean"]) for line in metrics[1:])

    exam = exam_of("atlas", write_atlas(tmp_path / "test.jsonl"), f"index:{tmp_path / 'index'}", 4, 4)
    assert [one.cluster for one in exam.questions] == ["Borduria", "Syldavia"] * 2
    exam = replace(exam, progress=False)
    await score(exam, "weak", runs, choices, told.append)
    assert told == ["atlas, weak: 0 scored before, 3 to score"]
    names = [start_named("atlas", "weak", 3), *(run.name for run in runs)]
    assert [len(read_scores(choices.out, name)) for name in names] == [4, 4, 4]
    digests = {read_scores(choices.out, name)[0].options["digest"] for name in names}
    assert len(digests) > 1
    await score(exam, "weak", runs, choices, told.append)
    assert told[-1] == "atlas, weak: 3 scored before, 0 to score"

    section = studies_section(choices.out, tmp_path)
    assert "### controls-atlas-weak" in section
    assert "| random reward | 1 of 3 | 2 |" in section
