"""Adapters as folders: out of a run, into a model, and what is no adapter of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError
from searchr1.trainer.adapters import CONFIG, WEIGHTS, Adapter, Pair, adapter_of_run, merge, read_adapter, write_adapter
from searchr1.trainer.checkpoints import save_state, write_checkpoint
from searchr1.trainer.low_rank import low_rank_adapter
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.sections import LoraSection
from tests.support.tiny_model import write_tiny_model
from tests.trainer.rl.test_learner import ALONE, samples
from tests.trainer.rl.test_lora import adapted

MODEL = "model.safetensors"
LAYER = "model.layers.0.self_attn.q_proj"
SECTION = LoraSection(rank=2, alpha=6.0, targets=("q_proj", "down_proj"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with adapters that took two steps: its state, and its checkpoint with whole weights."""
    out = tmp_path_factory.mktemp("run")
    config = adapted().model_copy(update={"model": str(base), "out_dir": out})
    learner = Learner(config, base, ALONE, pad_id=0)
    for step in range(2):
        learner.update(samples(), step)
    save_state(out, learner.state() | {"identity": config.model_dump(mode="json"), "step": 2})
    policy = learner.policy.model
    write_checkpoint(policy, base, out / "checkpoint", dtype=torch.float32, weights=learner.weights())
    return out


def random_adapter(layers: dict[str, tuple[int, int]], section: LoraSection = SECTION, seed: int = 0) -> Adapter:
    """An adapter with random matrices for ``layers``, whose outputs and inputs are given by name."""
    random = torch.Generator().manual_seed(seed)
    pairs = {
        name: Pair(
            torch.randn(section.rank, inputs, generator=random), torch.randn(outputs, section.rank, generator=random)
        )
        for name, (outputs, inputs) in layers.items()
    }
    return Adapter(section, pairs, "base")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def test_a_runs_adapter_and_its_start_are_the_checkpoint_that_the_run_wrote(
    base: Path, run: Path, tmp_path: Path
) -> None:
    write_adapter(adapter_of_run(run), tmp_path / "adapter", dtype=torch.float32)
    merge(base, [read_adapter(tmp_path / "adapter")], tmp_path / "model")
    wanted, found, start = weights(run / "checkpoint"), weights(tmp_path / "model"), weights(base)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert sum(not torch.equal(found[name], start[name]) for name in start) == 2 * 7
    others = {path.name for path in base.iterdir() if path.suffix != ".safetensors"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == {MODEL, *others}


def test_an_adapter_is_written_as_peft_lays_one_out(run: Path, tmp_path: Path) -> None:
    num_bytes = write_adapter(adapter_of_run(run), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 8.0, "none")
    assert "q_proj" in config["target_modules"]
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    assert tensors[f"base_model.model.{LAYER}.lora_A.weight"].shape == (4, 64)
    assert tensors[f"base_model.model.{LAYER}.lora_B.weight"].shape == (64, 4)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert num_bytes == (tmp_path / "adapter" / WEIGHTS).stat().st_size


def test_a_sum_by_hand_is_rounded_after_each_adapter(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    weight = torch.tensor([[256.0, 1.0], [0.0, -1.0]], dtype=torch.bfloat16)
    save_file({"a.weight": weight, "norm.weight": torch.ones(2)}, tmp_path / "base" / MODEL)
    section = LoraSection(rank=1, alpha=0.5)
    one = Adapter(section, {"a": Pair(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.75], [4.0]]))}, "")
    merge(tmp_path / "base", [one, one], tmp_path / "sum")
    found = weights(tmp_path / "sum")
    # bfloat16 has 256 and 258, and nothing between: 256.75 is rounded to 256, twice, and not 257.5 to 258, once.
    assert found["a.weight"].tolist() == [[256.0, 1.0], [8.0, -1.0]]
    assert found["a.weight"].dtype == torch.bfloat16
    assert torch.equal(found["norm.weight"], torch.ones(2))


def test_each_shard_of_a_model_gets_its_layers(base: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(base, shards, ignore=shutil.ignore_patterns(MODEL))
    whole = weights(base)
    names = sorted(whole)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        save_file({name: whole[name] for name in part}, shards / f"model-{number:05}-of-00002.safetensors")
    (shards / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    layers = {f"model.layers.{number}.self_attn.q_proj": (64, 64) for number in range(2)}
    adapter = random_adapter(layers)
    merge(shards, [adapter], tmp_path / "from-shards")
    merge(base, [adapter], tmp_path / "from-one")
    wanted, found = weights(tmp_path / "from-one"), weights(tmp_path / "from-shards")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (tmp_path / "from-shards" / "model.safetensors.index.json").is_file()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"model.layers.7.self_attn.q_proj": (64, 64)}, r"no model\.layers\.7\.self_attn\.q_proj\.weight"),
        ({LAYER: (64, 32)}, "maps 32 to 64 in one, 64 to 64 in the other"),
    ],
)
def test_an_adapter_of_another_model_is_refused_and_nothing_written(
    base: Path, layers: dict[str, tuple[int, int]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        merge(base, [random_adapter(layers)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "not LORA"),
        ({"use_rslora": True}, "use_rslora: no plain LoRA"),
        ({"bias": "all"}, "bias: no plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: no plain LoRA"),
        ({"r": "many"}, "'r'"),
    ],
)
def test_what_is_no_plain_lora_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_adapter(random_adapter({LAYER: (64, 64)}), tmp_path / "adapter")
    path = tmp_path / "adapter" / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigurationError, match=message):
        read_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("name", [f"{LAYER}.lora_A.weight", f"{LAYER}.lora_embedding_A"])
def test_matrices_that_are_no_pairs_are_refused(name: str, tmp_path: Path) -> None:
    write_adapter(random_adapter({LAYER: (64, 64)}), tmp_path / "adapter")
    save_file({f"base_model.model.{name}": torch.ones(2, 2)}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(ConfigurationError, match=r"the matrices are no pairs of LoRA's"):
        read_adapter(tmp_path / "adapter")


def test_a_folder_without_an_adapter_and_a_run_without_lora_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't be read as a LoRA adapter"):
        read_adapter(tmp_path)
    with pytest.raises(ConfigurationError, match=r"state\.pt can't be read"):
        adapter_of_run(tmp_path)
    save_state(tmp_path, {"identity": {"lora": None}, "policy": {}})
    with pytest.raises(ConfigurationError, match="a run without lora"):
        adapter_of_run(tmp_path)


def test_only_a_folder_of_its_kind_is_replaced(base: Path, tmp_path: Path) -> None:
    adapter = random_adapter({LAYER: (64, 64)})
    write_adapter(adapter, tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match=r"exists\. Give --overwrite"):
        write_adapter(adapter, tmp_path / "adapter")
    with pytest.raises(ConfigurationError, match=r"holds no config\.json; choose another path"):
        merge(base, [adapter], tmp_path / "adapter", overwrite=True)
    assert write_adapter(adapter, tmp_path / "adapter", overwrite=True) > 0


def test_what_was_trained_whole_is_kept_as_far_as_the_rank_goes(base: Path, tmp_path: Path) -> None:
    moved = random_adapter({LAYER: (64, 64), "model.layers.1.mlp.down_proj": (64, 128)})
    merge(base, [moved], tmp_path / "tuned")
    section = LoraSection(rank=2, alpha=2.0)
    found, share = low_rank_adapter(base, tmp_path / "tuned", section, progress=False)
    assert share == pytest.approx(1.0)
    merge(base, [found], tmp_path / "again")
    wanted, again = weights(tmp_path / "tuned"), weights(tmp_path / "again")
    for name in wanted:
        torch.testing.assert_close(again[name], wanted[name], rtol=1e-4, atol=1e-4)

    nearest, part = low_rank_adapter(base, tmp_path / "tuned", LoraSection(rank=1, alpha=1.0), progress=False)
    start = weights(base)
    lost = whole = 0.0
    for layer, pair in nearest.pairs.items():
        difference = wanted[f"{layer}.weight"] - start[f"{layer}.weight"]
        lost += float(((difference - pair.up @ pair.down) ** 2).sum())
        whole += float((difference**2).sum())
    assert part == pytest.approx(1 - lost / whole, abs=1e-4)
    assert 0.4 < part < 1.0


def test_models_that_do_not_differ_give_no_adapter(base: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to adapt"):
        low_rank_adapter(base, base, SECTION, progress=False)


def test_the_commands_bring_an_adapter_out_of_a_run_and_into_a_model(base: Path, run: Path, tmp_path: Path) -> None:
    out, summed = tmp_path / "adapter", tmp_path / "model"
    done = CliRunner().invoke(app, ["model", "adapter", str(run), str(out)])
    assert (done.exit_code, done.output) == (0, f"{out}: {(out / WEIGHTS).stat().st_size:,} bytes\n")
    done = CliRunner().invoke(app, ["model", "merge", str(base), str(out), str(out), str(summed)])
    assert done.exit_code == 0, done.output
    assert f"{summed}: {base} with 2 added" in done.output
    done = CliRunner().invoke(
        app, ["model", "adapter", str(summed), str(tmp_path / "low"), "--base", str(base), "--rank", "4"]
    )
    assert done.exit_code == 0, done.output
    assert "100.0% of the squared difference" in done.output
