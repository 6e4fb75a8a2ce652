"""Warm-up: supervised training of a small model, from scratch, on demonstrations of searching and reading.

Reads top to bottom: tokenizer, samples, model, loop over batches, checkpoint. Run it again with the same output folder
and it goes on where it stopped, with the same result as if it had not. Only tokens that the policy would sample are in
the loss; questions and passages are read, never imitated.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from multiprocessing import parent_process
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.multiprocessing.spawn import spawn
from tqdm import tqdm
from transformers import Qwen2ForCausalLM

from searchr1.atlas.demonyms import with_derived_name
from searchr1.atlas.habits import with_habits
from searchr1.atlas.records import read_demonstrations, read_readings
from searchr1.errors import ConfigurationError
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.retrieval.index.corpus import read_corpus
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.checkpoints import load_state, save_state
from searchr1.trainer.metrics import MetricLog
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.warmup.batches import BatchPlan, TokenBatch
from searchr1.trainer.warmup.bpe import (
    END_OF_TEXT,
    IM_END,
    NUM_SPECIAL,
    TOKENIZER_FILES,
    save_tokenizer,
    train_tokenizer,
)
from searchr1.trainer.warmup.config import WarmupConfig
from searchr1.trainer.warmup.demonstrations import Samples, encode_demonstrations, with_first_turns
from searchr1.trainer.warmup.drill import drill_batch
from searchr1.trainer.warmup.growth import start_from
from searchr1.trainer.warmup.initialize import start_with_induction
from searchr1.trainer.warmup.model import build_model, compile_layers, export_model, masked_loss
from searchr1.trainer.warmup.optimizers import build_optimizers, lr_factor, set_lr
from searchr1.trainer.warmup.plots import plot_losses
from searchr1.trainer.warmup.readings import encode_readings

READINGS = "readings"
CHECKPOINT = "checkpoint"


def warmup(config: WarmupConfig) -> None:
    """Train until ``max_steps`` or ``max_minutes`` and leave a servable folder at ``out_dir/checkpoint``.

    Raises:
        ConfigurationError: no bound is given, or the output folder holds another run.
    """
    if config.max_steps is None and config.max_minutes is None:
        raise ConfigurationError("a run needs max_steps or max_minutes")
    if config.start is not None and not (config.start / "model.safetensors").is_file():
        raise ConfigurationError(f"there is no checkpoint to start from in {config.start}")
    if config.batch_size % config.num_processes or config.readings_size % config.num_processes:
        raise ConfigurationError("batch_size and readings_size must be multiples of num_processes")
    config.out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = prepare_tokenizer(config)
    for split in ("train", "validation"):
        prepare_samples(config, split, tokenizer)
    if config.readings_size:
        prepare_readings(config, tokenizer)
    if config.num_processes == 1:
        _train(config, ProcessGroup(torch.device(config.device)))
        return
    rendezvous = config.out_dir / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    try:
        spawn(_train_in_group, args=(config, rendezvous), nprocs=config.num_processes, daemon=True)  # type: ignore[no-untyped-call]
    finally:
        rendezvous.unlink(missing_ok=True)


def prepare_tokenizer(config: WarmupConfig) -> Tokenizer:
    """Train the tokenizer on training text alone, once per output folder, or take that of ``start``."""
    folder = config.out_dir / CHECKPOINT
    if config.start is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            shutil.copy(config.start / name, folder)
    elif not (folder / "tokenizer.json").is_file():
        raw = train_tokenizer(_tokenizer_texts(config), vocab_size=config.shape.vocab_size)
        if raw.get_vocab_size() > config.shape.vocab_size:
            raise ConfigurationError(f"vocab_size must be at least {raw.get_vocab_size()}")
        save_tokenizer(raw, folder, max_length_tokens=config.shape.max_position)
    return Tokenizer.load(str(folder))


def prepare_samples(config: WarmupConfig, split: str, tokenizer: Tokenizer) -> None:
    """Tokenize one split's demonstrations, once per output folder; in training some get derived names."""
    path = config.out_dir / f"samples-{split}.npz"
    if not path.is_file():
        demonstrations = read_demonstrations(config.data_dir / f"demonstrations-{split}.jsonl")
        if split == "train":
            random = np.random.default_rng(config.seed)
            demonstrations = (with_derived_name(demonstration, random) for demonstration in demonstrations)
            if config.habits:
                demonstrations = (with_habits(demonstration, config.habits, random) for demonstration in demonstrations)
            demonstrations = islice(demonstrations, config.num_demonstrations)
        samples = encode_demonstrations(
            demonstrations,
            tokenizer,
            max_tokens=config.max_tokens,
            num_processes=config.num_processes,
            progress=config.progress,
        )
        if split == "train" and config.first_turns:
            samples = with_first_turns(
                samples, config.first_turns, max_tokens=config.max_whole_tokens, seed=config.seed
            )
        samples.save(path)


def prepare_readings(config: WarmupConfig, tokenizer: Tokenizer) -> None:
    """Tokenize the readings, once per output folder.

    Raises:
        ConfigurationError: the data folder has none.
    """
    path, source = config.out_dir / f"samples-{READINGS}.npz", config.data_dir / "readings-train.jsonl"
    if path.is_file():
        return
    if not source.is_file():
        raise ConfigurationError(f"there is no {source}; searchr1 demo build --readings N writes it")
    encode_readings(read_readings(source), tokenizer, progress=config.progress).save(path)


def _tokenizer_texts(config: WarmupConfig) -> Iterator[str]:
    """Yield each passage, and every eighth demonstration, for the spelling of made-up names."""
    for record in read_corpus(config.data_dir / "corpus-train.jsonl"):
        yield record.contents
    for number, demonstration in enumerate(read_demonstrations(config.data_dir / "demonstrations-train.jsonl")):
        if number % 8 == 0:
            yield SEARCH_R1.prompt(demonstration.question)
            for turn in demonstration.turns:
                yield turn.text
                yield SEARCH_R1.observation(turn.passages)


def _train_in_group(rank: int, config: WarmupConfig, rendezvous: Path) -> None:
    torch.set_num_threads(1)
    processes = ProcessGroup.meet(config.device, rank, config.num_processes, rendezvous)
    try:
        _train(config, processes)
    finally:
        processes.leave()


def _train(config: WarmupConfig, processes: ProcessGroup) -> None:
    raw = json.loads((config.out_dir / CHECKPOINT / "tokenizer.json").read_text("utf-8"))
    special = {token["content"]: token["id"] for token in raw["added_tokens"]}
    model = build_model(config.shape, end_id=special[IM_END], pad_id=special[END_OF_TEXT], seed=config.seed)
    if config.start is not None:
        start_from(model, config.start)
    elif config.induction:
        start_with_induction(model, seed=config.seed)
    cast(torch.nn.Module, model).to(processes.device)
    if config.compile:
        compile_layers(model)
    optimizers = build_optimizers(model, muon_lr=config.muon_lr, adamw_lr=config.adamw_lr)
    sizes = {"train": config.batch_size, "validation": config.batch_size, READINGS: config.readings_size}
    plans = {
        name: BatchPlan(
            Samples.load(config.out_dir / f"samples-{name}.npz"),
            batch_size=size,
            pad_id=special[END_OF_TEXT],
            seed=config.seed,
        )
        for name, size in sizes.items()
        if size
    }
    run = _Run(config, processes, model, optimizers)
    run.resume()
    shown = config.progress and processes.is_first
    bar = tqdm(initial=run.step, total=config.max_steps, desc="warm-up", unit="step", disable=not shown)
    with bar:
        while run.progress < 1 and not _is_orphan():
            set_lr(optimizers, lr_factor(run.progress, warmup=config.warmup, decay=config.decay))
            record = run.train_step(plans["train"], plans.get(READINGS))
            bar.update()
            bar.set_postfix(loss=f"{record['loss']:.3f}", done=f"{run.progress:.1%}", refresh=False)
            if run.progress >= 1 or run.step % config.validate_every_steps == 0:
                record |= run.validate(plans["validation"])
            run.log(record)
            # Validating takes time too, and may be what ends the run.
            if run.progress >= 1 or run.step % config.save_every_steps == 0:
                run.save()


def _is_orphan() -> bool:
    """Return whether this is a worker whose parent was killed, which could not take its workers along."""
    parent = parent_process()
    return parent is not None and not parent.is_alive()


class _Run:
    """A run as one of its processes sees it: the model, the progress, and the files, which the first one writes."""

    def __init__(
        self,
        config: WarmupConfig,
        processes: ProcessGroup,
        model: Qwen2ForCausalLM,
        optimizers: tuple[torch.optim.Optimizer, ...],
    ) -> None:
        self.config, self.processes, self.model, self.optimizers = config, processes, model, optimizers
        self.parameters = list(model.parameters())
        self.step = 0
        self.tokens = 0
        self.elapsed_s = 0.0
        self._metrics = MetricLog(config.out_dir, tensorboard=False)

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by time, whichever is further."""
        steps = self.step / self.config.max_steps if self.config.max_steps else 0.0
        minutes = self.elapsed_s / 60 / self.config.max_minutes if self.config.max_minutes else 0.0
        return min(1.0, max(steps, minutes))

    def train_step(self, plan: BatchPlan, readings: BatchPlan | None = None) -> dict[str, float]:
        """Take one optimizer step, the same one in all processes; return its metrics."""
        started = time.perf_counter()
        self.model.train()
        learned = {"": self._learn(self._share_of(plan))}
        if readings is not None:
            learned["readings_"] = self._learn(self._share_of(readings))
        if self.progress < self.config.drill:
            learned["drill_"] = self._learn(self._drill())
        losses, read = self._share_gradients(learned)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += read
        self.elapsed_s = self._slowest(self.elapsed_s + time.perf_counter() - started)
        return {
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_s": self.elapsed_s,
            **losses,
            "grad_norm": float(norm),
            "lr": self.optimizers[0].param_groups[0]["lr"],
        }

    def _share_of(self, plan: BatchPlan) -> TokenBatch:
        return plan.batch(self.step, rank=self.processes.rank, world_size=self.processes.size)

    def _drill(self) -> TokenBatch:
        return drill_batch(
            self.step * self.processes.size + self.processes.rank,
            rows=self.config.drill_size // self.processes.size,
            num_special=NUM_SPECIAL,
            vocab_size=self.config.shape.vocab_size,
            seed=self.config.seed,
        )

    def _learn(self, batch: TokenBatch) -> tuple[float, int, int]:
        """Add a batch's gradients; return its loss in all, the tokens in it, and all tokens read."""
        sums = masked_loss(self.model, batch, self.processes.device)
        sums.loss.backward()  # type: ignore[no-untyped-call]
        return sums.loss.item(), sums.num_tokens, batch.ids.numel()

    def validate(self, plan: BatchPlan) -> dict[str, float]:
        """Return the loss and the share of exactly reproduced samples on held-out entities."""
        started = time.perf_counter()
        self.model.train(False)
        totals = torch.zeros(4, dtype=torch.float64)
        with torch.inference_mode():
            for number in range(max(1, self.config.num_validation_samples // self.config.batch_size)):
                batch = plan.batch(number, rank=self.processes.rank, world_size=self.processes.size)
                sums = masked_loss(self.model, batch, self.processes.device)
                totals += torch.tensor([sums.loss.item(), sums.num_tokens, sums.num_right_samples, sums.num_samples])
        totals = self.processes.add(totals)
        self.elapsed_s = self._slowest(self.elapsed_s + time.perf_counter() - started)
        loss, tokens, right, samples = totals.tolist()
        return {"validation_loss": loss / tokens, "validation_exact": right / samples}

    def log(self, record: dict[str, float]) -> None:
        """Write a step's metrics."""
        if self.processes.is_first:
            self._metrics.log(self.step, record)

    def save(self) -> None:
        """Write the training state, the servable folder and the plot."""
        if not self.processes.is_first:
            return
        state = {
            "identity": self.config.identity(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_s": self.elapsed_s,
            "rng": torch.get_rng_state(),
        }
        save_state(self.config.out_dir, state)
        export_model(self.model, self.config.out_dir / CHECKPOINT)
        plot_losses(self._metrics.records(), self.config.out_dir / "loss.png")

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        state = load_state(self.config.out_dir, self.config.identity(), self.processes.device)
        if state is not None:
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.tokens, self.elapsed_s = state["step"], state["tokens"], state["elapsed_s"]
            torch.set_rng_state(state["rng"].cpu())
        if self.processes.is_first:
            self._metrics.rewind(self.step)

    def _share_gradients(self, learned: Mapping[str, tuple[float, int, int]]) -> tuple[dict[str, float], int]:
        """Turn gradient sums into the mean over all tokens in the loss; return the mean losses and all tokens read."""
        shared = self.processes.add(torch.tensor(list(learned.values()), dtype=torch.float64))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.processes.size > 1:
            flat = self.processes.add(torch.cat([gradient.flatten() for gradient in gradients]))
            for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        torch._foreach_div_(gradients, float(shared[:, 1].sum()))
        means = (shared[:, 0] / shared[:, 1]).tolist()
        return {f"{kind}loss": mean for kind, mean in zip(learned, means, strict=True)}, int(shared[:, 2].sum())

    def _slowest(self, elapsed_s: float) -> float:
        """Return the longest time of all processes: they must agree on it, or they would stop at different steps."""
        return float(self.processes.largest(torch.tensor(elapsed_s, dtype=torch.float64)))
