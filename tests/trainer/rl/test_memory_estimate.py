"""Estimates of memory: parameters as published, bytes as torch has them, and the table of the guide."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaModel
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.errors import ConfigurationError
from searchr1.trainer.rl import memory_estimate, policy
from searchr1.trainer.rl.config import TrainConfig, load_config
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.memory_estimate import GIB, estimate, layer_bytes, memory_table
from searchr1.trainer.rl.policy import Critic
from searchr1.trainer.rl.sections import LoraSection
from searchr1.trainer.rl.shapes import KNOWN, ModelShape, shape_of
from tests.support.tiny_model import write_tiny_model
from tests.trainer.rl.test_learner import ALONE, config, samples

ROOT = Path(__file__).parents[3]
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
}
"""Parameters that the hub counts in the models' files."""
OF_GPUS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if "device: cuda" in path.read_text("utf-8"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("model", KNOWN)
def test_a_known_shape_has_the_parameters_that_are_published(model: str) -> None:
    assert KNOWN[model].params == PUBLISHED[model]
    assert shape_of(f"{model}-Instruct") is KNOWN[model]


def test_the_shape_in_a_folder_has_the_models_parameters(tiny: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    shape = shape_of(str(tiny))
    assert shape.params == sum(parameter.numel() for parameter in model.parameters())
    layer = model.model.layers[0]
    assert shape.layer_params == sum(parameter.numel() for parameter in layer.parameters())
    critic = Critic(tiny, torch.device("cpu"))
    assert shape.critic_params == sum(parameter.numel() for parameter in critic.parameters())


def test_a_shape_that_is_not_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="shape of some/model is not known: give a folder"):
        shape_of("some/model")
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ConfigurationError, match="describes no model"):
        shape_of(str(tmp_path))


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [False, True])
def test_what_is_kept_is_what_a_learner_keeps(tiny: Path, algorithm: str, dtype: str, lora: bool) -> None:
    chosen = config(algorithm, optimizer={"dtype": dtype})
    if lora:
        chosen = chosen.model_copy(update={"lora": LoraSection(rank=4)})
    learner = Learner(chosen, tiny, ALONE, pad_id=0)
    learner.update(samples(), 0)
    kept = 0
    for trained in learner._trained().values():
        parameters = list(trained.module.parameters())
        kept += sum(parameter.nbytes for parameter in parameters)
        kept += sum(parameter.nbytes for parameter in parameters if parameter.requires_grad)  # Their gradients.
        kept += sum(
            moment.nbytes for moments in trained.optimizer.state.values() for moment in moments.values() if moment.dim()
        )
    for copy in learner._models.copies:
        kept += sum(half.nbytes for half in {slot.copy for slot in copy._slots})
    if learner.reference is not None:
        kept += sum(parameter.nbytes for parameter in learner.reference.parameters())
    assert estimate(chosen, shape_of(str(tiny)), 1).kept * GIB == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_saves_what_is_estimated(dtype: torch.dtype) -> None:
    shape = ModelShape(1, 256, 768, 4, 4, 64, True, 64)
    untyped: Any = LlamaConfig
    settings = untyped(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=1,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        attn_implementation="sdpa",
    )
    made: Any = LlamaModel
    layer: Any = made(settings).to(dtype).layers[0]
    saved: dict[int, int] = {}
    weights = {parameter.data_ptr() for parameter in layer.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = 128
    hidden = torch.randn(2, tokens, shape.hidden, dtype=dtype, requires_grad=True)
    angles = torch.randn(2, tokens, shape.head_size, dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(hidden, position_embeddings=(angles, angles))
    assert sum(saved.values()) == pytest.approx(2 * tokens * layer_bytes(shape, dtype.itemsize), rel=0.15)
    assert out.requires_grad


def test_the_chunks_are_the_policys() -> None:
    assert memory_estimate.CHUNK_TOKENS == policy.CHUNK_TOKENS <= 1024


@pytest.mark.parametrize("path", OF_GPUS, ids=lambda path: path.stem)
def test_a_file_for_gpus_fits_on_eight_of_80_gb(path: Path) -> None:
    chosen = load_config(path)
    assert "8 GPUs of 80 GB" in path.read_text("utf-8").splitlines()[0]
    assert estimate(chosen, shape_of(chosen.model), 8).fits(80)
    assert chosen.optimizer.max_tokens_per_pass <= 16_384
    assert chosen.rollout.sleep
    assert chosen.rollout.engines == "each"


def test_an_optimizer_step_may_be_the_peak() -> None:
    chosen = load_config(ROOT / "configs" / "qwen2.5-3b-grpo.yaml")
    shape = KNOWN["Qwen/Qwen2.5-3B"]
    assert estimate(chosen, shape, 1).added * GIB == 4 * shape.params
    assert estimate(chosen, shape, 8).added * GIB > 4 * shape.params / 8


def _parts(chosen: TrainConfig, num_gpus: int) -> tuple[float, float]:
    found = estimate(chosen, KNOWN["Qwen/Qwen2.5-7B"], num_gpus)
    return found.kept, found.added


def test_more_of_anything_takes_more() -> None:
    chosen = load_config(ROOT / "configs" / "qwen2.5-7b-ppo.yaml")
    kept, added = _parts(chosen, 8)
    assert _parts(chosen, 4)[0] == pytest.approx(2 * kept)
    for overrides in ({"optimizer.max_tokens_per_pass": 16_384}, {"optimizer.activation_checkpointing": False}):
        more = load_config(ROOT / "configs" / "qwen2.5-7b-ppo.yaml", overrides)
        assert _parts(more, 8)[0] == kept
        assert _parts(more, 8)[1] > added
    grpo = load_config(ROOT / "configs" / "qwen2.5-7b-grpo.yaml")
    assert _parts(grpo, 8)[0] < 0.6 * kept
    awake = load_config(ROOT / "configs" / "qwen2.5-7b-ppo.yaml", {"rollout.sleep": False})
    one, other = (estimate(each, KNOWN["Qwen/Qwen2.5-7B"], 8) for each in (chosen, awake))
    assert other.update(80) - one.update(80) == pytest.approx(0.4 * 80 - memory_estimate.ASLEEP_GIB)
    elsewhere = {"rollout.engine_urls": ["http://127.0.0.1:1"], "rollout.engines": "first"}
    alone = load_config(ROOT / "configs" / "qwen2.5-7b-ppo.yaml", elsewhere)
    assert estimate(alone, KNOWN["Qwen/Qwen2.5-7B"], 8).rollouts(80) == pytest.approx(
        kept + memory_estimate.CONTEXT_GIB
    )


def test_the_table_of_the_guide_is_what_the_command_prints() -> None:
    guide = (ROOT / "docs" / "guides" / "distributed-training.md").read_text("utf-8")
    shown = re.search(r"^\| configuration \|.*?(?=\n\n)", guide, flags=re.DOTALL | re.MULTILINE)
    assert shown is not None
    files = [ROOT / "configs" / f"{name}.yaml" for name in dict.fromkeys(re.findall(r"^\| `(.*?)` ", shown[0], re.M))]
    assert {path.name for path in OF_GPUS if "instruct" not in path.name} == {path.name for path in files}
    printed = CliRunner().invoke(app, ["train", "memory", *map(str, files)])
    assert printed.exit_code == 0, printed.output
    assert printed.output.strip() == shown[0]


def test_the_command_takes_other_values_and_numbers_of_gpus() -> None:
    path = ROOT / "configs" / "qwen2.5-7b-ppo.yaml"
    overrides = {"model": "Qwen/Qwen2.5-3B", "optimizer.max_tokens_per_pass": 4096}
    words = [word for name, value in overrides.items() for word in ("--set", f"{name}={value}")]
    printed = CliRunner().invoke(app, ["train", "memory", str(path), "--gpus", "2", *words])
    assert printed.output.strip() == memory_table([path], [load_config(path, overrides)], [2])
