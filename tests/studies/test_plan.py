"""The plan of the studies: runs that are shared, commands, and what the scale makes of them."""

import json
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from loadtests.studies import __main__ as command
from loadtests.studies.commands import Choices, commands_of, rollout_of, scaled
from loadtests.studies.plan import STUDIES, WORLDS, Run, Study, all_runs, runs_of, world_named
from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.sections import RolloutSection

ROOT = Path(__file__).parents[2]
ATLAS = [study for study in STUDIES if study.world == "atlas"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def study_named(name: str) -> Study:
    return next(study for study in STUDIES if study.name == name)


def command_of(run: Run, choices: Choices) -> list[str]:
    """The one command of a run."""
    [command] = commands_of(run, choices)
    return command


def settings_of(run: Run, choices: Choices) -> dict[str, str]:
    """Settings that a run's command gives, by name."""
    words = command_of(run, choices)
    return dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "--set")


def test_the_papers_studies_are_there_with_their_seeds() -> None:
    begins = {study.name.partition("-")[0] for study in STUDIES}
    assert begins == {"table", "mask", "long", "top", "group", "format", "controls"}
    masks = {study.name for study in STUDIES if study.name.startswith("mask")}
    assert masks >= {f"mask-{a}-atlas-{s}" for a in ("grpo", "ppo") for s in ("weak", "stage-one")}
    assert masks >= {"mask-grpo-realqa-form", "mask-ppo-realqa-form"}
    assert {study.num_seeds for study in STUDIES} == {3}
    for study in STUDIES:
        starts = {study.start, *(arm.start for arm in study.arms if arm.start)}
        assert starts <= world_named(study.world).starts.keys()


def test_runs_of_one_name_are_one_run(tmp_path: Path) -> None:
    choices = Choices(out=tmp_path)
    commands: dict[str, set[str]] = {}
    for study in ATLAS:
        for run in runs_of(study):
            commands.setdefault(run.name, set()).add(str(commands_of(run, choices)))
    assert {name for name, found in commands.items() if len(found) > 1} == set()
    # The plain run of GRPO is in the study of the mask and in that of the controls.
    shared = {run.name for run in runs_of(study_named("mask-grpo-atlas-weak"))}
    assert shared & {run.name for run in runs_of(study_named("controls-atlas-weak"))}
    assert len(all_runs(ATLAS)) == len(commands)


def test_every_arm_has_a_run_before_any_has_two() -> None:
    study = study_named("mask-ppo-atlas-weak")
    first = [(run.arm.label, run.seed) for run in runs_of(study)][:3]
    assert first == [("with the loss mask", 0), ("without", 0), ("with the loss mask", 1)]
    assert [run.seed for run in runs_of(study, 1)] == [0, 0]
    assert len(list(runs_of(study, 9))) == 6


def test_a_run_is_its_configuration_with_its_own_settings(tmp_path: Path) -> None:
    with_mask, without = list(runs_of(study_named("mask-ppo-atlas-weak")))[:2]
    words = command_of(without, Choices(out=tmp_path))
    assert words[:5] == [sys.executable, "-m", "searchr1.cli", "train", "run"]
    assert words[5:7] == ["configs/atlas-ppo.yaml", "--no-progress"]
    found = settings_of(without, Choices(out=tmp_path))
    assert found == {
        "model": "runs/weak/checkpoint",
        "out_dir": str(tmp_path / "runs" / "atlas-weak-ppo-nomask-seed0"),
        "seed": "0",
        "loss.mask_observations": "false",
    }
    assert "loss.mask_observations" not in settings_of(with_mask, Choices(out=tmp_path))


def test_the_command_line_names_other_files(tmp_path: Path) -> None:
    run = next(runs_of(study_named("mask-ppo-atlas-weak")))
    choices = Choices(
        out=tmp_path,
        starts={"weak": "elsewhere"},
        configs={"atlas-ppo": "configs/atlas-grpo.yaml"},
        settings={"atlas": ["rollout.kv_cache_gib=0.5"], "realqa": ["data=none"]},
    )
    found = settings_of(run, choices)
    assert (found["model"], found["rollout.kv_cache_gib"]) == ("elsewhere", "0.5")
    assert "data" not in found
    assert "configs/atlas-grpo.yaml" in command_of(run, choices)
    with pytest.raises(ConfigurationError, match=r"missing\.yaml can't be read"):
        command_of(run, replace(choices, configs={"atlas-ppo": "missing.yaml"}))


def test_groups_of_any_size_have_as_many_rollouts(tmp_path: Path) -> None:
    choices = Choices(out=tmp_path, configs={"realqa-grpo": "configs/atlas-grpo.yaml"})
    sizes = []
    for run in list(runs_of(study_named("group-size-realqa")))[1:4]:
        found = settings_of(run, choices)
        sizes.append((int(found["rollout.group_size"]), int(found["rollout.questions_per_step"])))
    assert sizes == [(1, 130), (3, 43), (10, 13)]


def test_the_scale_shortens_all_runs_alike(tmp_path: Path) -> None:
    choices = Choices(out=tmp_path, scale=0.25)
    plain = next(runs_of(study_named("mask-grpo-atlas-weak")))
    found = settings_of(plain, choices)
    assert found["num_steps"] == "3"
    assert found["rollout.questions_per_step"] == "6"
    assert (found["num_eval_questions"], found["eval_every_steps"]) == ("50", "1")
    long = next(runs_of(study_named("long-atlas")))
    assert settings_of(long, choices)["num_steps"] == "15"
    assert settings_of(long, replace(choices, scale=1.0))["num_steps"] == "60"
    given = replace(choices, settings={"atlas": ["num_steps=100"]})
    assert settings_of(plain, given)["num_steps"] == "25"
    assert [scaled(count, 0.1, 2) for count in (100, 5, 1)] == [10, 2, 1]


def test_clean_fine_tuning_is_a_command_of_its_own(tmp_path: Path) -> None:
    run = next(run for run in runs_of(study_named("controls-atlas-weak")) if run.arm.algorithm == "sft")
    words = command_of(run, Choices(out=tmp_path, scale=0.5))
    assert words[3:5] == ["train", "warmup"]
    given = dict(zip(words[5::2], words[6::2], strict=True))
    assert (given["--start"], given["--out"]) == ("runs/weak/checkpoint", str(run.folder(tmp_path)))
    assert (given["--max-steps"], given["--seed"]) == ("60", "0")


def test_rejection_sampling_imitates_what_was_right_at_the_budget_of_grpo(tmp_path: Path) -> None:
    words = {"realqa-grpo": "configs/atlas-grpo.yaml", "realqa-rejection": "sft a.yaml --set data=[{right}]"}
    choices = Choices(out=tmp_path, scale=0.25, configs=words)
    runs = {run.arm.label: run for run in runs_of(study_named("table-realqa"), 1)}
    run = runs["rejection sampling"]
    folder = run.folder(tmp_path)
    sample, together, export, imitate = commands_of(run, choices)
    assert sample[3:6] == ["train", "sample", "configs/atlas-grpo.yaml"]
    assert f"out_dir={folder / 'sampled'}" in sample
    budget = {"num_steps=3", "rollout.questions_per_step=6"}
    assert budget <= set(sample)
    assert budget <= set(command_of(runs["GRPO"], choices))
    assert together[:2] == ["sh", "-c"]
    assert export[3:6] == ["export", "--input", str(folder / "sampled" / "all.jsonl")]
    assert imitate[3:] == ["train", "sft", "a.yaml", "--set", f"data=[{folder / 'right.jsonl'}]"]


@pytest.mark.parametrize("name", ["controls-atlas-weak", "controls-realqa-form"])
def test_a_right_rollout_of_any_length_is_imitated(name: str, tmp_path: Path) -> None:
    run = next(run for run in runs_of(study_named(name)) if run.arm.algorithm == "rejection")
    imitate = commands_of(run, Choices(out=tmp_path))[-1]
    [setting] = [word for word in imitate if word.startswith("max_tokens=")]
    grpo = yaml.safe_load(Path(world_named(run.world).configs["grpo"]).read_text("utf-8"))
    section = RolloutSection(**grpo["rollout"])
    longest = section.max_context_tokens + section.max_completion_tokens
    assert longest <= int(setting.partition("=")[2]) <= longest + 500


def test_r1_starts_from_the_fine_tuning_without_search(tmp_path: Path) -> None:
    choices = Choices(out=tmp_path, configs={"realqa-grpo": "configs/atlas-grpo.yaml"})
    runs = {run.arm.label: run for run in runs_of(study_named("table-realqa"), 1)}
    r1 = settings_of(runs["R1"], choices)
    assert r1["model"] == str(runs["SFT"].folder(tmp_path) / "checkpoint")
    assert r1["rollout.max_searches"] == "0"
    sft = settings_of(runs["SFT"], choices)
    assert sft["model"] == "models/smollm2"
    # It is scored without search, which is no field of a fine-tuning.
    assert runs["SFT"].arm.max_searches == 0
    assert "rollout.max_searches" not in sft


def test_as_many_passages_as_are_searched_fit(tmp_path: Path) -> None:
    plain, top_1, top_5 = list(runs_of(study_named("top-k-realqa"), 1))
    choices = Choices(out=tmp_path)
    assert (
        settings_of(top_5, choices).items()
        >= {
            "rollout.top_k": "5",
            "rollout.max_observation_tokens": "850",
            "rollout.max_context_tokens": "3222",
            "rollout.max_trajectory_tokens": "3222",
        }.items()
    )
    assert rollout_of(top_1, choices) == rollout_of(plain, choices) | {"top_k": 1}
    given = replace(choices, settings={"realqa": ["rollout.max_turns=2", "num_steps=1"]})
    assert rollout_of(plain, given) == rollout_of(plain, choices) | {"max_turns": 2}


def test_the_plan_is_shown_with_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(runs_of(study_named("mask-ppo-atlas-weak")))
    run.folder(tmp_path).mkdir(parents=True)
    done = {"command": "c", "seed": 0, "began": 1.0, "ended": 2.0}
    (run.folder(tmp_path) / "done.json").write_text(json.dumps(done))
    words = ["plan", str(tmp_path), "--only", "mask-ppo-atlas-weak", "--seeds", "1"]
    monkeypatch.setattr(sys, "argv", ["studies", *words])
    command.main()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  done  atlas-weak-ppo-seed0: with the loss mask",
        "        atlas-weak-ppo-nomask-seed0: without",
    ]
    monkeypatch.setattr(sys, "argv", ["studies", "plan", "--only", "nothing"])
    with pytest.raises(SystemExit, match="no study begins like that"):
        command.main()


def test_every_start_is_made_by_a_command_of_the_guides() -> None:
    guides = "".join((ROOT / "docs/guides" / name).read_text("utf-8") for name in ("starts.md", "training.md"))
    folders = [folder for world in WORLDS for folder in world.starts.values() if not folder.startswith("{runs}")]
    assert [folder for folder in folders if folder.removesuffix("/checkpoint") not in guides] == []


def test_worlds_have_names_of_their_own() -> None:
    assert [world.name for world in WORLDS] == ["atlas", "realqa"]
    starts = [start for world in WORLDS for start in world.starts]
    assert len(set(starts)) == len(starts)
    with pytest.raises(ValueError, match="no world 'mars'; there are atlas, realqa"):
        world_named("mars")
