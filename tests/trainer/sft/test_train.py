"""Fine-tuning a tiny random model: it learns, resumes exactly, survives bad numbers, and leaves a servable folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError, TrainingError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.config import load_section
from searchr1.trainer.sft import train as module
from searchr1.trainer.sft.config import SftConfig
from searchr1.trainer.sft.train import fine_tune
from searchr1.trainer.sft.tuned import MasterAdamW, loss_sums, shared_prefix
from searchr1.trainer.warmup.batches import pad
from searchr1.trainer.widths import WIDTH_STEP
from tests.support.tiny_model import write_tiny_model

CONFIGS = Path(__file__).parents[3] / "configs" / "sft"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def rows(tmp_path: Path, model_folder: Path) -> Path:
    """Twelve samples of unequal lengths, whose second half is to be learned."""
    tokenizer = Tokenizer.load(str(model_folder))
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(12):
            asked = tokenizer.encode("what? " * (1 + number % 4))
            said = tokenizer.encode(f"<answer> {number % 3} </answer>")
            mask = [0] * len(asked) + [1] * len(said)
            file.write(json.dumps({"token_ids": asked + said, "loss_mask": mask}) + "\n")
    return path


@pytest.fixture
def config(model_folder: Path, rows: Path, tmp_path: Path) -> SftConfig:
    return SftConfig(
        model=str(model_folder),
        data=(rows,),
        eval_data=rows,
        out_dir=tmp_path / "run",
        max_steps=6,
        batch_size=4,
        max_tokens_per_pass=130,
        lr=1e-2,
        validate_every_steps=3,
        save_every_steps=2,
    )


def changed(config: SftConfig, **fields: Any) -> SftConfig:
    return SftConfig.model_validate(config.model_dump() | fields)


def records(config: SftConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.out_dir / "metrics.jsonl").read_text("utf-8").splitlines()]


def weights(config: SftConfig) -> dict[str, torch.Tensor]:
    return load_file(config.out_dir / "checkpoint" / "model.safetensors")


def test_a_run_learns_and_leaves_a_servable_folder(config: SftConfig, model_folder: Path) -> None:
    fine_tune(changed(config, max_steps=60, validate_every_steps=60), progress=False)
    logged = records(config)
    assert logged[0]["step"] == 0
    assert logged[-1]["validation_loss"] < logged[0]["validation_loss"] / 3
    assert logged[-1]["validation_token_accuracy"] > 0.8
    assert (config.out_dir / "loss.png").read_bytes().startswith(b"\x89PNG")
    checkpoint = config.out_dir / "checkpoint"
    assert {path.name for path in checkpoint.iterdir()} == {path.name for path in model_folder.iterdir()}
    assert Tokenizer.load(str(checkpoint)).same_as(Tokenizer.load(str(model_folder)))
    untyped: Any = AutoModelForCausalLM
    assert untyped.from_pretrained(checkpoint).config.vocab_size > 0


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    config: SftConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tune(config, progress=False)
    halved = changed(config, out_dir=tmp_path / "halved")

    def stop(run: Any) -> Any:
        if run.step == 3:
            raise KeyboardInterrupt
        return original(run)

    original = module._Run.train_step
    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "train_step", stop)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(halved, progress=False)
    fine_tune(halved, progress=False)
    times = {"elapsed_s", "tokens_per_s"}
    told = [[{k: v for k, v in r.items() if k not in times} for r in records(c)] for c in (config, halved)]
    assert told[0] == told[1]
    for name, weight in weights(config).items():
        assert torch.equal(weight, weights(halved)[name]), name
    with pytest.raises(ConfigurationError, match="other settings \\(lr\\)"):
        fine_tune(changed(halved, lr=1e-3), progress=False)


def test_passes_give_the_gradient_of_the_whole(config: SftConfig) -> None:
    """Padding and the division into passes change nothing but the order of sums."""
    gradients = []
    for max_tokens in (66, 10_000):
        run = module._Run(
            changed(config, dtype="float32", max_tokens_per_pass=max_tokens, out_dir=config.out_dir / str(max_tokens)),
            Path(config.model),
            *[module._prepare(config, Path(config.model), "train", config.data, progress=False)] * 2,
        )
        passes = run._passes(run.samples, run.plan.rows(0))
        for batch in passes:
            loss_sums(run.model, batch, run.device).loss.backward()  # type: ignore[no-untyped-call]
            run.optimizer.gather()
        gradients.append((len(passes), [master.grad for master in run.optimizer._masters]))
    (few, whole), (many, parts) = sorted(gradients, key=lambda one: one[0])
    assert (few, many > 1) == (1, True)
    for one, other in zip(whole, parts, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_loss_is_over_masked_tokens_alone(model_folder: Path) -> None:
    untyped: Any = AutoModelForCausalLM
    model: PreTrainedModel = untyped.from_pretrained(model_folder, dtype=torch.float32)
    ids, mask = [5, 6, 7, 8, 9], [0, 0, 1, 0, 1]
    sums = loss_sums(model, pad([ids], [mask], pad_id=0), torch.device("cpu"))
    forward: Any = model
    logits = forward(input_ids=torch.tensor([ids])).logits[0].float()
    expected = sum(-logits[place - 1].log_softmax(-1)[ids[place]] for place in (2, 4))
    assert sums.num_tokens == 2
    torch.testing.assert_close(sums.loss, expected, rtol=1e-4, atol=1e-4)


def test_what_all_rows_begin_with_is_computed_once_and_changes_nothing(model_folder: Path) -> None:
    untyped: Any = AutoModelForCausalLM
    model: Any = untyped.from_pretrained(model_folder, dtype=torch.float32)
    common = [5 + number % 90 for number in range(WIDTH_STEP + 10)]
    rows = [[*common, *tail] for tail in ([7, 8, 9], [7, 9], [6, 6, 6, 6])]
    batch = pad(rows, [[0] * (len(row) - 2) + [1, 1] for row in rows], pad_id=0)
    assert shared_prefix(batch) == WIDTH_STEP
    found = []
    for one in (batch, *(pad([row], [[0] * (len(row) - 2) + [1, 1]], pad_id=0) for row in rows)):
        model.zero_grad()
        sums = loss_sums(model, one, torch.device("cpu"))
        sums.loss.backward()  # type: ignore[no-untyped-call]
        found.append((sums.loss.detach(), [weight.grad.clone() for weight in model.parameters()]))
    torch.testing.assert_close(found[0][0], sum(loss for loss, _ in found[1:]), rtol=1e-4, atol=1e-4)
    for whole, *parts in zip(*(gradients for _, gradients in found), strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-3, atol=1e-4)


def test_a_prefix_ends_before_what_is_in_the_loss() -> None:
    same = [[5] * 200, [5] * 200]
    assert shared_prefix(pad(same, [[0] * 64 + [1] * 136] * 2, pad_id=0)) == 0, "its last token predicts a learned one"
    assert shared_prefix(pad(same, [[0] * 65 + [1] * 135] * 2, pad_id=0)) == 64
    assert shared_prefix(pad(same[:1], [[0] * 100 + [1] * 100], pad_id=0)) == 0


def test_steps_too_small_for_bfloat16_add_up() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.gather()
        optimizer.step(lr=1e-4, num_tokens=1, max_grad_norm=1.0)
    assert float(weight[0, 0].detach()) == pytest.approx(0.99, abs=0.004)


def test_a_bad_step_is_skipped_and_many_in_a_row_end_the_run(
    config: SftConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(1000))

    def sometimes_bad(*arguments: Any) -> Any:
        sums = loss_sums(*arguments)
        return sums._replace(loss=sums.loss * float("nan")) if next(numbers) in bad else sums

    monkeypatch.setattr(module, "loss_sums", sometimes_bad)
    config = changed(config, eval_data=None, max_tokens_per_pass=10_000, max_bad_steps=3)
    bad = {1, 3}
    fine_tune(config, progress=False)
    assert [record["num_bad"] for record in records(config)] == [0, 1, 1, 2, 2, 2]
    assert all(bool(torch.isfinite(weight).all()) for weight in weights(config).values())
    before = weights(config)
    bad = set(range(1000))
    with pytest.raises(TrainingError, match="3 steps in a row"):
        fine_tune(changed(config, save_every_steps=50, out_dir=config.out_dir.with_name("bad")), progress=False)
    assert not (config.out_dir.with_name("bad") / "checkpoint").exists()
    assert np.all([torch.equal(before[name], weight) for name, weight in weights(config).items()])


def test_a_choice_of_samples_depends_on_the_seed(config: SftConfig) -> None:
    chosen: list[list[int]] = []
    for seed in (0, 0, 1):
        some = changed(config, num_samples=5, seed=seed, out_dir=config.out_dir / f"{len(chosen)}")
        some.out_dir.mkdir(parents=True)
        samples = module._prepare(some, Path(config.model), "train", config.data, progress=False)
        assert len(samples) == 5
        chosen.append(samples.ids.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_steps": None}, "needs max_steps, num_epochs or max_minutes"),
        ({"num_epochs": 2}, "exclude each other"),
        ({"profile": "nothing"}, "nothing"),
        ({"data": []}, "data"),
        ({"learning_rate": 1}, "learning_rate"),
    ],
)
def test_a_configuration_that_cannot_run_is_told(config: SftConfig, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changed(config, **fields)


def test_the_command_trains_what_a_file_says(config: SftConfig, tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")), "utf-8")
    done = CliRunner().invoke(app, ["train", "sft", str(file), "--set", "max_steps=1", "--no-progress"])
    assert done.exit_code == 0, done.output
    assert f"searchr1 serve --model {config.out_dir / 'checkpoint'}" in " ".join(done.output.split())
    assert [record["step"] for record in records(config)] == [0, 1]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_file_is_a_run_with_a_folder_of_its_own(path: Path) -> None:
    assert load_section(SftConfig, path).out_dir == Path("runs") / path.stem
