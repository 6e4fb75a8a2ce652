"""Reinforcement learning of a policy that searches: roll out, score, update, hand the new weights to the engine; again.

Reads top to bottom. Rollouts run on the loop, the driver and the retriever that serve, on vLLM in this process. Where
it departs from the paper (arXiv 2503.09516) and its code:

Rollouts:

* Completions stop at ``</search>`` and ``</answer>``; the reference samples on and cuts afterwards. Sampled ids stand
  in the trajectory, so that their logprobs belong to them; the reference tokenizes the cut text again.
* A prompt has no bound of its own; the reference cuts one over 2,048 tokens.
* Evaluations are greedy, as the reference means them: its ``do_sample: False`` is lost on the way to its engine.
* ``searches`` counts those that were carried out; the reference also counts one that is asked for in the last turn.

Losses:

* The mean over tokens is over a whole minibatch. The reference takes the mean of the means of its micro-batches (64
  rollouts, 8 for the critic, on each GPU), where a token counts more in a short one.
* GAE, whitening and the value loss run over sampled tokens alone. ``loss.gae_over: all`` is the reference's way.
* The value loss is over these tokens. The reference's mask is shifted by one, so that it has one position more, with
  a target of 0, and its GAE starts from a value after the last token: other advantages where gamma or lambda is not 1.
* PPO without ``loss.mask_observations`` has the KL of all tokens in the reward; the reference that of sampled ones.
* The critic's head starts at zero; the reference's is random.
* Old logprobs are the trainer's own, of the weights that sampled; the engine's differ by rounding, which is measured,
  and weighed with ``loss.importance_cap``.
* A group that lost all but one of its rollouts teaches nothing; in the reference the one gets its reward as advantage.

Optimizer:

* The learning rate rises with each optimizer step, from its first; the reference's rises once a step, from 0. Then
  it stays, as in the reference.
* A step whose loss or gradient is not finite is skipped (``guard.py``); the reference takes it.
* There is no early stop: ``checkpoint`` is that of the last step, ``checkpoint-best`` that of the best evaluation.

Run it again with the same file and it goes on from its last save, with the same result as if it had not stopped, as
far as the engine's samples can be repeated. Every process of ``torchrun`` runs this; the first one scores and writes.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from searchr1.errors import ConfigurationError
from searchr1.trainer.checkpoints import dtype_of, find_model, load_state, save_state, write_checkpoint
from searchr1.trainer.curves import plot_run
from searchr1.trainer.heap import keep_freed_memory
from searchr1.trainer.kept_checkpoints import KeptCheckpoints
from searchr1.trainer.metrics import MetricLog
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.actor import Actor, open_actor
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.crew import Crew, at_work, open_crew
from searchr1.trainer.rl.held_out import main_score
from searchr1.trainer.rl.kept_rollouts import SAMPLED, KeptRollouts
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.weights_folder import weights_folder

PLOT = "curves.png"
_CHANGEABLE = {
    "out_dir",
    "device",
    "eval_every_steps",
    "eval_seed",
    "keep_checkpoints",
    "keep_rollouts",
    "max_rollouts_mb",
    "max_skipped_updates",
    "num_eval_questions",
    "num_eval_samples",
    "save_every_steps",
}
"""Settings that a resumed run may have otherwise than the run that it resumes."""


async def train(config: TrainConfig, *, progress: bool = True) -> None:
    """Train until ``num_steps`` and leave a servable folder at ``out_dir/checkpoint``.

    A run that has all its steps already is left as it is, without an engine.

    Raises:
        ConfigurationError: something in ``config`` can't be had, or ``out_dir`` holds another run.
        DatasetError, CorpusError: questions or passages can't be read.
        EngineError: the engine is gone for good.
        TrainingError: update after update had a loss or a gradient that is not finite.
    """
    if (config.out_dir / SAMPLED).exists():
        raise ConfigurationError(f"{config.out_dir} holds rollouts of searchr1 train sample; use another out_dir")
    processes = ProcessGroup.join(config.device)
    if processes.device.type == "cpu":
        keep_freed_memory()
    source = find_model(config.model)
    config.out_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    learner = Learner(config, source, processes, pad_id=0)
    run = _Run(config, source, processes, learner, progress=progress)
    run.resume()
    try:
        if run.step >= config.num_steps:
            return
        async with AsyncExitStack() as stack:
            actor, crew, folder = None, None, Path()
            if processes.is_first:
                folder = stack.enter_context(weights_folder(config, run.num_weight_bytes()))
                opened = await stack.enter_async_context(open_actor(config, source, processes=processes))
                actor, crew = replace(opened, kept=run.rollouts), opened.crew
            elif config.rollout.engines == "each":
                crew = await stack.enter_async_context(open_crew(config, source, processes))
            folder = processes.broadcast(folder)
            if run.step > 0:
                await run.push(actor, crew, folder)
            if run.step == 0:
                async with at_work(crew):
                    if actor is not None:
                        run.log.log(0, {"step": 0.0, "policy_version": 0.0} | await run.evaluate(actor))
            with tqdm(
                desc=config.algorithm, initial=run.step, total=config.num_steps, unit="step", disable=not run.shown
            ) as bar:
                while run.step < config.num_steps:
                    record = await _one_step(run, actor, crew, folder)
                    bar.update()
                    bar.set_postfix(_postfix(record))
    finally:
        run.log.close()
        processes.leave()


async def _one_step(run: "_Run", actor: Actor | None, crew: Crew | None, folder: Path) -> dict[str, float]:
    """Roll out, score, update and push; evaluate and save where that is due; return the metrics that were logged."""
    started = time.perf_counter()
    config, processes = run.config, run.processes

    collected = None
    async with at_work(crew):
        if actor is not None:
            num_rollouts = config.rollout.questions_per_step * config.rollout.group_size
            with run.bar("rollouts", num_rollouts) as advance:
                collected = await actor.collect(run.step, lambda _: advance(1))
    samples, record = processes.broadcast(collected)
    if crew is not None:
        await crew.rest()

    updating = time.perf_counter()
    with run.bar("update", -(-len(samples) * run.learner.num_looks // processes.size)) as advance:
        record |= await asyncio.to_thread(run.learner.update, samples, run.step, advance)
    run.step += 1
    record["update_s"] = time.perf_counter() - updating

    pushing = time.perf_counter()
    await run.push(actor, crew, folder)
    record["sync_s"] = time.perf_counter() - pushing

    finished = run.step == config.num_steps
    is_evaluated = config.eval_data is not None and (finished or run.step % config.eval_every_steps == 0)
    if is_evaluated:
        async with at_work(crew):
            if actor is not None:
                record |= await run.evaluate(actor)
    run.elapsed_s += time.perf_counter() - started
    record |= {
        "step": float(run.step),
        "policy_version": float(run.step),
        "step_s": time.perf_counter() - started,
        "elapsed_s": run.elapsed_s,
    }
    if processes.is_first:
        run.log.log(run.step, record)
    run.learner.guard.check()
    if finished or run.step % config.save_every_steps == 0:
        await asyncio.to_thread(run.save)
    elif is_evaluated and processes.broadcast(run.best_step() == run.step):
        await asyncio.to_thread(run.save_best)
    return record


class _Run:
    """The progress of a run, and the files that it writes."""

    def __init__(
        self, config: TrainConfig, source: Path, processes: ProcessGroup, learner: Learner, *, progress: bool
    ) -> None:
        self.config, self.source, self.processes, self.learner = config, source, processes, learner
        self.shown = progress and processes.is_first
        self.step = 0
        self.elapsed_s = 0.0
        self.log = MetricLog(config.out_dir, tensorboard=processes.is_first)
        self.checkpoints = KeptCheckpoints(config.out_dir, keep=config.keep_checkpoints)
        self.rollouts = KeptRollouts(
            config.out_dir,
            model=config.model,
            num_each=config.keep_rollouts,
            max_bytes=config.max_rollouts_mb * 10**6,
            seed=config.seed,
        )

    async def push(self, actor: Actor | None, crew: Crew | None, folder: Path) -> None:
        """Give the engines the policy's weights as they are now."""
        self.processes.wait_for_first()
        # Whole only once every process has got here, so that none reads the folder any more.
        weights = self.learner.weights()
        if actor is not None:
            model, dtype = self.learner.policy.model, self._engine_dtype()
            await asyncio.to_thread(write_checkpoint, model, self.source, folder, dtype=dtype, weights=weights)
        if crew is not None:
            await crew.take_weights(folder, version=str(self.step))

    async def evaluate(self, actor: Actor) -> dict[str, float]:
        """Score the policy on the evaluation's questions, if there are any."""
        if not actor.eval_questions:
            return {}
        num_answers = len(actor.eval_questions) * (1 + self.config.num_eval_samples)
        with self.bar("evaluation", num_answers) as advance:
            return await actor.evaluate(self.step, lambda _: advance(1))

    def num_weight_bytes(self) -> int:
        """Return the bytes of the policy's weights on their way to the engine."""
        num = sum(parameter.numel() for parameter in self.learner.policy.parameters())
        return num * self._engine_dtype().itemsize

    def best_step(self) -> int | None:
        """Return the step with the best score, the first of them, in the first process: of this one and those kept."""
        within = {self.step, *self.checkpoints.steps()} - {0}
        scored = [(int(record["step"] or 0), main_score(record)) for record in self.log.records()]
        scores = {step: score for step, score in scored if step in within and score is not None}
        return max(scores, key=lambda step: (scores[step], -step), default=None)

    def save(self) -> None:
        """Write a checkpoint, the plot and the training state; then let those checkpoints go that are not kept."""
        self.processes.wait_for_first()
        state, weights = self.learner.state(), self.learner.weights()
        if not self.processes.is_first:
            return
        self._write_checkpoint(weights)
        plot_run(self.log.records(), self.config.out_dir / PLOT)
        save_state(
            self.config.out_dir,
            state | {"identity": _identity(self.config), "step": self.step, "elapsed_s": self.elapsed_s},
        )
        best = self.best_step()
        self.checkpoints.point(last=self.step, best=best)
        self.checkpoints.prune(last=self.step, best=best)

    def save_best(self) -> None:
        """Write a checkpoint of the policy that has just scored best, between two saves."""
        weights = self.learner.weights()
        if self.processes.is_first:
            self._write_checkpoint(weights)
            self.checkpoints.point(best=self.step)

    def _write_checkpoint(self, weights: dict[str, torch.Tensor]) -> None:
        folder, dtype = self.checkpoints.folder(self.step), dtype_of(self.source)
        write_checkpoint(self.learner.policy.model, self.source, folder, dtype=dtype, weights=weights)

    def _engine_dtype(self) -> torch.dtype:
        return torch.float32 if self.config.rollout.engine_dtype == "float32" else dtype_of(self.source)

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        state, place = {}, None
        if self.processes.is_first:
            state = load_state(self.config.out_dir, _identity(self.config), torch.device("cpu")) or {}
            place = (state["step"], state["elapsed_s"]) if state else (-1, 0.0)
            self.log.rewind(place[0])
            self.rollouts.rewind(place[0])
            self.checkpoints.recover(last=place[0], best=self.best_step())
        step, self.elapsed_s = self.processes.broadcast(place)
        if step >= 0:
            self.learner.load_state(state)
            self.step = step

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar within the step's, gone when it is full."""
        with tqdm(desc=name, total=total, leave=False, disable=not self.shown) as bar:
            yield lambda count: (bar.update(count), None)[1]


def _identity(config: TrainConfig) -> dict[str, Any]:
    fields: dict[str, Any] = config.model_dump(mode="json")
    return {name: value for name, value in fields.items() if name not in _CHANGEABLE}


def _postfix(record: dict[str, float]) -> dict[str, str]:
    shown = {"reward": "reward_mean", "searches": "searches", "kl": "kl", "EM": "eval_em"}
    return {label: f"{record[name]:.3f}" for label, name in shown.items() if name in record}
