"""Reinforcement learning of a policy that searches: roll out, score, update, hand the new weights to the engine; again.

Reads top to bottom. Rollouts run on the loop, the driver and the retriever that serve, on vLLM in this process. Where
it departs from the paper (arXiv 2503.09516) and its code:

* Completions stop at ``</search>`` and ``</answer>``; the reference samples on and cuts afterwards. Sampled ids stand
  in the trajectory, so that their logprobs belong to them; the reference tokenizes the cut text again.
* GAE, whitening and the value loss run over sampled tokens alone. ``loss.gae_over: all`` is the reference's way.
* Old logprobs are the trainer's own, of the weights that sampled; the engine's differ by rounding, which is measured,
  and weighed with ``loss.importance_cap``.
* A group that lost all but one of its rollouts teaches nothing; in the reference the one gets its reward as advantage.
* No learning rate decays, as in the reference; there is no early stop: the checkpoint is that of the last step.

Run it again with the same file and it goes on from its last save, with the same result as if it had not stopped, as
far as the engine's samples can be repeated. Every process of ``torchrun`` runs this; the first one scores and writes.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from searchr1.trainer.checkpoints import dtype_of, find_model, load_state, save_state, write_checkpoint
from searchr1.trainer.curves import plot_run
from searchr1.trainer.heap import keep_freed_memory
from searchr1.trainer.metrics import MetricLog
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.actor import Actor, open_actor, weights_folder
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.crew import Crew, at_work, open_crew
from searchr1.trainer.rl.learner import Learner

CHECKPOINT = "checkpoint"
PLOT = "curves.png"
_CHANGEABLE = {"out_dir", "num_eval_questions", "eval_every_steps", "save_every_steps", "device"}
"""Settings that a resumed run may have otherwise than the run that it resumes."""


async def train(config: TrainConfig, *, progress: bool = True) -> None:
    """Train until ``num_steps`` and leave a servable folder at ``out_dir/checkpoint``.

    A run that has all its steps already is left as it is, without an engine.

    Raises:
        ConfigurationError: something in ``config`` can't be had, or ``out_dir`` holds another run.
        DatasetError, CorpusError: questions or passages can't be read.
        EngineError: the engine is gone for good.
    """
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
                folder = stack.enter_context(weights_folder(config))
                actor = await stack.enter_async_context(open_actor(config, source, processes=processes))
                crew = actor.crew
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
    if finished or run.step % config.eval_every_steps == 0:
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
    if finished or run.step % config.save_every_steps == 0:
        await asyncio.to_thread(run.save)
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

    async def push(self, actor: Actor | None, crew: Crew | None, folder: Path) -> None:
        """Give the engines the policy's weights as they are now."""
        self.processes.wait_for_first()
        # Whole only once every process has got here, so that none reads the folder any more.
        weights = self.learner.weights()
        if actor is not None:
            dtype = torch.float32 if self.config.rollout.engine_dtype == "float32" else dtype_of(self.source)
            model = self.learner.policy.model
            await asyncio.to_thread(write_checkpoint, model, self.source, folder, dtype=dtype, weights=weights)
        if crew is not None:
            await crew.take_weights(folder, version=str(self.step))

    async def evaluate(self, actor: Actor) -> dict[str, float]:
        """Score the policy on the evaluation's questions, if there are any."""
        if not actor.eval_questions:
            return {}
        with self.bar("evaluation", len(actor.eval_questions)) as advance:
            return await actor.evaluate(lambda _: advance(1))

    def save(self) -> None:
        """Write the training state, the servable folder and the plot; each replaces the last one whole."""
        self.processes.wait_for_first()
        state, weights = self.learner.state(), self.learner.weights()
        if not self.processes.is_first:
            return
        write_checkpoint(
            self.learner.policy.model,
            self.source,
            self.config.out_dir / CHECKPOINT,
            dtype=dtype_of(self.source),
            weights=weights,
        )
        plot_run(self.log.records(), self.config.out_dir / PLOT)
        save_state(
            self.config.out_dir,
            state | {"identity": _identity(self.config), "step": self.step, "elapsed_s": self.elapsed_s},
        )

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        state, place = {}, None
        if self.processes.is_first:
            state = load_state(self.config.out_dir, _identity(self.config), torch.device("cpu")) or {}
            place = (state["step"], state["elapsed_s"]) if state else (-1, 0.0)
            self.log.rewind(place[0])
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
