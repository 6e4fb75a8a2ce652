"""Several processes against one: the same weights, the same metrics, and a state that either can go on from."""

import json
import math
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from loadtests.processes import free_port
from searchr1.trainer.checkpoints import write_checkpoint
from searchr1.trainer.process_group import ProcessGroup, ProcessLostError
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.sections import LoraSection
from tests.support.tiny_model import write_tiny_model
from tests.trainer.rl.test_learner import ALONE, config, samples

pytestmark = pytest.mark.timeout(900)

NUM_STEPS = 2
# Twelve samples make an odd number of passes in one of the two minibatches, so that one process has one for nothing.
OPTIMIZER = {"num_minibatches": 2, "max_tokens_per_pass": 100}
CASES: dict[str, TrainConfig] = {
    "grpo": config("grpo", optimizer=OPTIMIZER | {"activation_checkpointing": True}),
    "ppo-tied": config("ppo", optimizer=OPTIMIZER | {"max_grad_norm": 0.1}, loss={"over": "sequence"}),
    "ppo-lora": config("ppo", optimizer=OPTIMIZER).model_copy(update={"lora": LoraSection(rank=4)}),
    # One optimizer step, which the algorithm needs no look before.
    "grpo-once": config("grpo", optimizer=OPTIMIZER | {"num_minibatches": 1}),
    "grpo-once-lora": config("grpo", optimizer=OPTIMIZER | {"num_minibatches": 1}).model_copy(
        update={"lora": LoraSection(rank=4)}
    ),
}
HALF: dict[str, TrainConfig] = {
    f"{algorithm}-half": config(
        algorithm, optimizer=OPTIMIZER | {"dtype": "bfloat16", "activation_checkpointing": algorithm == "ppo"}
    )
    for algorithm in ("grpo", "ppo")
}
"""In bfloat16: by a working copy in one process, by FSDP2 in two."""


@dataclass(frozen=True, slots=True)
class Models:
    """Folders of tiny models."""

    untied: Path
    tied: Path

    def of(self, case: str) -> Path:
        return self.tied if case.endswith("-tied") else self.untied


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    untied = write_tiny_model(tmp_path_factory.mktemp("untied"))
    tied = write_tiny_model(tmp_path_factory.mktemp("tied"))
    model: Any = AutoModelForCausalLM.from_pretrained(tied)
    model.lm_head.weight = model.model.embed_tokens.weight
    with torch.no_grad():
        model.lm_head.weight *= 0.1
    model.config.tie_word_embeddings = True
    model.save_pretrained(tied)
    return Models(untied, tied)


def learn(case: str, models: Models, processes: ProcessGroup, out: Path) -> None:
    """Take ``NUM_STEPS`` updates; write the state and metrics after each, and then the weights in two layouts."""
    torch.manual_seed(0)
    learner = Learner((CASES | HALF)[case], models.of(case), processes, pad_id=0)
    for step in range(NUM_STEPS):
        metrics = learner.update(samples(12), step)
        (out / f"{case}-{step}-{processes.rank}.json").write_text(json.dumps(metrics))
        state = learner.state()
        if processes.is_first:
            torch.save(state, out / f"{case}-{step}.state")
    weights = learner.weights()
    if processes.is_first:
        torch.save(weights, out / f"{case}.weights")
        folder = out / f"{case}-checkpoint"
        write_checkpoint(learner.policy.model, models.of(case), folder, dtype=torch.float32, weights=weights)


def go_on(case: str, models: Models, processes: ProcessGroup, state: Path, out: Path) -> None:
    """Take the last update again, from another run's ``state`` before it."""
    learner = Learner(CASES[case], models.of(case), processes, pad_id=0)
    learner.load_state(torch.load(state, weights_only=True) if processes.is_first else {})
    metrics = learner.update(samples(12), NUM_STEPS - 1)
    weights = learner.weights()
    if processes.is_first:
        torch.save((metrics, weights), out)


def work(rank: int, port: int, models: Models, alone: Path, together: Path) -> None:
    """Run one of two processes; in the end the first dies while the second waits for it."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    processes = ProcessGroup.join("cpu")
    for case in HALF:
        learn(case, models, processes, together)
    for case in CASES:
        learn(case, models, processes, together)
        go_on(case, models, processes, alone / f"{case}-{NUM_STEPS - 2}.state", together / f"{case}.resumed")
    if processes.is_first:
        os._exit(7)
    try:
        processes.wait_for_first()
    except ProcessLostError as error:
        (together / "lost.txt").write_text(str(error))


def run_two(*arguments: Any) -> list[int | None]:
    """Run ``work(rank, port, *arguments)`` in two processes; return their exit codes."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    processes = [context.Process(target=work, args=(rank, port, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=800)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Folders in which the same runs left theirs: with one process, and with two."""

    alone: Path
    together: Path


@pytest.fixture(scope="module")
def outcomes(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    for case in CASES | HALF:
        learn(case, models, ALONE, alone)
    assert run_two(models, alone, together) == [7, 0]
    return Outcomes(alone, together)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The root of the summed squares."""
    assert one.keys() == other.keys()
    return math.sqrt(sum(float((one[name].float() - other[name].float()).square().sum()) for name in one))


def assert_close_metrics(one: dict[str, float], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


def start_of(case: str, models: Models) -> dict[str, torch.Tensor]:
    return Learner(CASES[case], models.of(case), ALONE, pad_id=0).weights()


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(case: str, models: Models, outcomes: Outcomes) -> None:
    for step in range(NUM_STEPS):
        wanted = json.loads((outcomes.alone / f"{case}-{step}-0.json").read_text())
        assert_close_metrics(wanted, json.loads((outcomes.together / f"{case}-{step}-0.json").read_text()))
    one, two = (torch.load(folder / f"{case}.weights") for folder in (outcomes.alone, outcomes.together))
    moved = distance(one, start_of(case, models))
    # Adam divides by the gradient's size, so an entry whose gradient is all rounding moves at random.
    assert distance(one, two) <= 0.02 * moved
    assert moved > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_every_process_knows_the_same_metrics(case: str, outcomes: Outcomes) -> None:
    first, second = ((outcomes.together / f"{case}-0-{rank}.json").read_text() for rank in range(2))
    assert first == second


@pytest.mark.parametrize("case", CASES)
def test_the_states_are_whole_and_alike(case: str, outcomes: Outcomes) -> None:
    one, two = (
        torch.load(folder / f"{case}-{NUM_STEPS - 1}.state", weights_only=True)
        for folder in (outcomes.alone, outcomes.together)
    )
    assert one.keys() == two.keys()
    for part in ("policy", "critic"):
        for name, tensor in one.get(part, {}).items():
            assert two[part][name].shape == tensor.shape, name
            assert two[part][name].device.type == "cpu"
    for part in ("optimizer", "critic_optimizer"):
        if part not in one:
            continue
        assert one[part]["state"].keys() == two[part]["state"].keys()
        for name, moments in one[part]["state"].items():
            for kind, tensor in moments.items():
                torch.testing.assert_close(two[part]["state"][name][kind], tensor, rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_with_another_number_of_processes(case: str, models: Models, outcomes: Outcomes) -> None:
    state = outcomes.together / f"{case}-{NUM_STEPS - 2}.state"
    go_on(case, models, ALONE, state, outcomes.alone / f"{case}.resumed")
    wanted = json.loads((outcomes.alone / f"{case}-{NUM_STEPS - 1}-0.json").read_text())
    through = torch.load(outcomes.alone / f"{case}.weights")
    moved = distance(through, start_of(case, models))
    for folder in (outcomes.alone, outcomes.together):
        metrics, weights = torch.load(folder / f"{case}.resumed")
        assert_close_metrics(wanted, metrics)
        assert distance(through, weights) <= 0.02 * moved


@pytest.mark.parametrize("case", CASES)
def test_the_checkpoint_is_a_model_with_those_weights(case: str, outcomes: Outcomes) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(outcomes.together / f"{case}-checkpoint")
    weights = torch.load(outcomes.together / f"{case}.weights")
    state = model.state_dict()
    assert distance(state, {name: weights[name] for name in state}) == 0.0


@pytest.mark.parametrize("case", HALF)
def test_two_processes_learn_in_bfloat16_what_one_does(case: str, models: Models, outcomes: Outcomes) -> None:
    """Passes are alike to the last bit or nearly so; what is added up over processes is float32."""
    wanted = json.loads((outcomes.alone / f"{case}-0-0.json").read_text())
    found = json.loads((outcomes.together / f"{case}-0-0.json").read_text())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=0.03, abs=2e-3), name
    assert found["kl"] == 0.0
    one, two = (torch.load(folder / f"{case}.weights") for folder in (outcomes.alone, outcomes.together))
    assert all(tensor.dtype == torch.float32 for tensor in two.values())
    start = Learner(HALF[case], models.of(case), ALONE, pad_id=0).weights()
    # Adam's first steps are the gradient's sign, which rounding turns where the gradient is small.
    assert distance(one, two) < 0.7 * distance(one, start)


def test_nobody_waits_for_a_process_that_died(outcomes: Outcomes) -> None:
    assert "another process" in (outcomes.together / "lost.txt").read_text()
