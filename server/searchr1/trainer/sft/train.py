"""Supervised fine-tuning of a pretrained model: samples, passes, checkpoint. It reads top to bottom.

Run it again with the same file and it goes on from its last save, with the same result as if it had not stopped. Only
tokens that the policy shall write are in the loss; questions and passages are read, never imitated.
"""

import logging
import math
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from searchr1.errors import TrainingError
from searchr1.loop.profiles.registry import profile_named
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.checkpoints import dtype_of, find_model, load_state, save_state, write_checkpoint
from searchr1.trainer.metrics import MetricLog
from searchr1.trainer.sft.config import SftConfig
from searchr1.trainer.sft.samples import gather
from searchr1.trainer.sft.tuned import MasterAdamW, compile_layers, load_model, loss_sums
from searchr1.trainer.warmup.batches import BatchPlan, TokenBatch, batch_of
from searchr1.trainer.warmup.demonstrations import Samples
from searchr1.trainer.warmup.optimizers import lr_factor
from searchr1.trainer.warmup.plots import plot_losses
from searchr1.trainer.widths import padded_width

CHECKPOINT = "checkpoint"
PLOT = "loss.png"

logger = logging.getLogger(__name__)


def fine_tune(config: SftConfig, *, progress: bool = True) -> None:
    """Train until ``config``'s bound and leave a servable folder at ``out_dir/checkpoint``.

    Raises:
        ConfigurationError: the model can't be had, or ``out_dir`` holds another run.
        DatasetError, CorpusError: the samples can't be read, or none fits.
        TrainingError: it did not stay finite.
    """
    source = find_model(config.model)
    config.out_dir.mkdir(parents=True, exist_ok=True)
    train = _prepare(config, source, "train", config.data, progress=progress)
    held_out = None
    if config.eval_data is not None:
        held_out = _prepare(config, source, "validation", (config.eval_data,), progress=progress)
    run = _Run(config, source, train, held_out)
    run.resume()
    bar = tqdm(initial=run.step, total=run.num_steps, desc="sft", unit="step", disable=not progress)
    with closing(run), bar:
        if run.step == 0 and held_out is not None:
            run.log(run.validate())
        while run.progress < 1:
            record = run.train_step()
            bar.update()
            bar.set_postfix(loss=f"{record['loss']:.3f}", done=f"{run.progress:.1%}", refresh=False)
            if run.progress >= 1 or run.step % config.validate_every_steps == 0:
                record |= run.validate()
            run.log(record)
            # Validating takes time too, and may be what ends the run.
            if run.progress >= 1 or run.step % config.save_every_steps == 0:
                run.save()


def _prepare(config: SftConfig, source: Path, name: str, paths: tuple[Path, ...], *, progress: bool) -> Samples:
    """Tokenize the samples, once per output folder."""
    path = config.out_dir / f"samples-{name}.npz"
    if not path.is_file():
        tokenizer = Tokenizer.load(str(source))
        profile = profile_named(config.profile)
        samples, left_out = gather(
            paths, tokenizer, profile, config.limits(), max_tokens=config.max_tokens, progress=progress
        )
        if left_out:
            logger.warning("%d samples of more than %d tokens are left out", left_out, config.max_tokens)
        if name == "train" and config.num_samples is not None and config.num_samples < len(samples):
            samples = _some_of(samples, config.num_samples, config.seed)
        samples.save(path)
    return Samples.load(path)


def _some_of(samples: Samples, number: int, seed: int) -> Samples:
    """Return ``number`` of the samples, in their order."""
    rows = np.sort(np.random.default_rng((seed, 1)).permutation(len(samples))[:number])
    spans = [(samples.offsets[row], samples.offsets[row + 1]) for row in rows]
    places = np.concatenate([np.arange(start, end) for start, end in spans])
    offsets = np.cumsum([0, *(end - start for start, end in spans)])
    return Samples(samples.ids[places], samples.loss_mask[places], offsets)


class _Run:
    """The progress of a run, and the files that it writes."""

    def __init__(self, config: SftConfig, source: Path, train: Samples, held_out: Samples | None) -> None:
        self.config, self.source, self.samples, self.held_out = config, source, train, held_out
        self.device = torch.device(config.device)
        torch.manual_seed(config.seed)
        self.model = load_model(source, self.device, getattr(torch, config.dtype))
        if config.compile:
            compile_layers(self.model)
        self.optimizer = MasterAdamW(
            list(self.model.parameters()), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        # The id of padding is never looked at: it stands behind everything that is.
        self.plan = BatchPlan(train, batch_size=min(config.batch_size, len(train)), pad_id=0, seed=config.seed)
        self.num_steps = config.max_steps
        if config.num_epochs is not None:
            self.num_steps = max(1, round(config.num_epochs * self.plan.batches_per_epoch))
        self.step, self.tokens, self.elapsed_s, self.num_bad = 0, 0, 0.0, 0
        self._bad_in_a_row = 0
        self._metrics = MetricLog(config.out_dir)

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by time, whichever is further."""
        steps = self.step / self.num_steps if self.num_steps else 0.0
        minutes = self.elapsed_s / 60 / self.config.max_minutes if self.config.max_minutes else 0.0
        return min(1.0, max(steps, minutes))

    def train_step(self) -> dict[str, float]:
        """Take one optimizer step; return its metrics.

        Raises ``TrainingError`` after too many in a row that were not finite.
        """
        started = time.perf_counter()
        config = self.config
        lr = config.lr * lr_factor(self.progress or 1e-3, warmup=config.warmup, decay=config.decay)
        self.model.train()
        loss, in_loss, right, read = 0.0, 0, 0, 0
        for batch in self._passes(self.samples, self.plan.rows(self.step)):
            sums = loss_sums(self.model, batch, self.device)
            if sums.num_tokens:
                sums.loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.gather()
            loss += sums.loss.item()
            in_loss, right, read = in_loss + sums.num_tokens, right + sums.num_right, read + batch.ids.numel()
        norm = self.optimizer.step(lr=lr, num_tokens=max(1, in_loss), max_grad_norm=config.max_grad_norm)
        self.step += 1
        self.tokens += read
        seconds = time.perf_counter() - started
        self.elapsed_s += seconds
        self._count(math.isfinite(norm))
        return {
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_s": self.elapsed_s,
            "loss": loss / max(1, in_loss),
            "token_accuracy": right / max(1, in_loss),
            "tokens_per_s": read / seconds,
            "grad_norm": norm,
            "lr": lr,
            "num_bad": self.num_bad,
        }

    def validate(self) -> dict[str, float]:
        """Return the loss on held-out samples, and the share of them that greedy decoding would reproduce."""
        if self.held_out is None:
            return {}
        started = time.perf_counter()
        self.model.train(False)
        rows = np.arange(min(self.config.num_validation_samples, len(self.held_out)))
        loss, in_loss, right, exact = 0.0, 0, 0, 0
        with torch.inference_mode():
            for batch in self._passes(self.held_out, rows[np.argsort(self.held_out.lengths[rows], kind="stable")]):
                sums = loss_sums(self.model, batch, self.device)
                loss, in_loss = loss + sums.loss.item(), in_loss + sums.num_tokens
                right, exact = right + sums.num_right, exact + sums.num_exact
        self.elapsed_s += time.perf_counter() - started
        return {
            "step": self.step,
            "tokens": self.tokens,
            "validation_loss": loss / max(1, in_loss),
            "validation_token_accuracy": right / max(1, in_loss),
            "validation_exact": exact / len(rows),
        }

    def log(self, record: dict[str, float]) -> None:
        """Write a step's metrics."""
        self._metrics.log(self.step, record)

    def close(self) -> None:
        """Finish the files of metrics."""
        self._metrics.close()

    def save(self) -> None:
        """Write the servable folder, the plot and the training state; each replaces the last one whole."""
        config = self.config
        write_checkpoint(self.model, self.source, config.out_dir / CHECKPOINT, dtype=dtype_of(self.source))
        plot_losses(self._metrics.records(), config.out_dir / PLOT)
        counts = {"step": self.step, "tokens": self.tokens, "elapsed_s": self.elapsed_s, "num_bad": self.num_bad}
        save_state(config.out_dir, {"identity": config.identity(), "optimizer": self.optimizer.state()} | counts)

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        state = load_state(self.config.out_dir, self.config.identity(), self.device)
        if state is not None:
            self.optimizer.load_state(state["optimizer"])
            self.step, self.tokens = state["step"], state["tokens"]
            self.elapsed_s, self.num_bad = state["elapsed_s"], state["num_bad"]
        self._metrics.rewind(self.step if state is not None else -1)

    def _passes(self, samples: Samples, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[TokenBatch]:
        """Return batches of the rows, which come sorted by length, of at most ``max_tokens_per_pass`` each."""
        parts: list[list[int]] = []
        for row in rows.tolist():
            width = padded_width(int(samples.lengths[row]))
            if parts and (len(parts[-1]) + 1) * width <= self.config.max_tokens_per_pass:
                parts[-1].append(row)
            else:
                parts.append([row])
        return [batch_of(samples, np.array(part), pad_id=0) for part in parts]

    def _count(self, is_finite: bool) -> None:
        self._bad_in_a_row = 0 if is_finite else self._bad_in_a_row + 1
        self.num_bad += not is_finite
        if self._bad_in_a_row >= self.config.max_bad_steps:
            raise TrainingError(
                f"{self._bad_in_a_row} steps in a row were not finite, the last one number {self.step}; "
                f"{self.config.out_dir} holds the last save. A lower lr, or other data, may help"
            )
