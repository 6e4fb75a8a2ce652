"""The settings of a warm-up run (``warmup.py``)."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from searchr1.trainer.warmup.habits import Habits
from searchr1.trainer.warmup.model import ModelShape

_CHANGEABLE = frozenset(
    ("data_dir", "out_dir", "max_minutes", "progress", "device", "num_processes", "save_every_steps", "compile")
)
"""What a resumed run may have otherwise than the run that it resumes."""


@dataclass(frozen=True, slots=True)
class WarmupConfig:
    """Everything that decides the outcome of a run."""

    data_dir: Path
    """Folder with ``corpus-train.jsonl`` and ``demonstrations-{train,validation}.jsonl``."""
    out_dir: Path
    """Where samples, training state, metrics, the plot and the finished ``checkpoint`` folder go."""
    shape: ModelShape = field(default_factory=lambda: ModelShape(vocab_size=2048))
    start: Path | None = None
    """A checkpoint of an earlier run to go on from: its tokenizer and its weights, of which ``shape`` may want more
    (``growth.py``). None: from scratch."""
    induction: bool = True
    """Start from weights that can already copy (``initialise.py``) instead of purely random ones."""
    max_steps: int | None = None
    """Optimizer steps of the whole run."""
    max_minutes: float | None = None
    """Wall-clock minutes of training in all, resumed time included. The schedule follows whichever bound is nearer."""
    batch_size: int = 16
    """Demonstrations per optimizer step, over all processes."""
    max_tokens: int = 1100
    """Longer demonstrations are left out."""
    num_demonstrations: int | None = None
    """Of the training file, from its start; None: all."""
    muon_lr: float = 0.01
    """Peak learning rate of the weight matrices."""
    adamw_lr: float = 1e-3
    """Peak learning rate of embedding, norms and biases."""
    warmup: float = 0.02
    """Share of the run over which the learning rates rise."""
    decay: float = 0.6
    """Share of the run, at its end, over which they fall to zero."""
    habits: Habits = field(default_factory=Habits)
    """Bad habits in the training demonstrations, for a start that reinforcement learning improves; none by default."""
    drill: float = 1.0
    """Share of the run, from its start, in which every step also takes a batch of the copying drill. Stopping it early
    costs held-out entities: tokens that are rare in the demonstrations fall out of use."""
    drill_size: int = 8
    """Rows of a drill batch, over all processes; about 200 tokens each."""
    readings_size: int = 0
    """Readings (``readings.py``) in every step, over all processes; about 250 tokens each."""
    compile: bool = False
    """Compile the layers: faster after some minutes, spent on one shape of batches after the other; needs a C++
    compiler."""
    max_grad_norm: float = 1.0
    num_processes: int = 1
    """Data-parallel processes; one per core on a CPU, where they wait less for each other than threads do."""
    device: str = "cpu"
    validate_every_steps: int = 100
    num_validation_samples: int = 256
    save_every_steps: int = 200
    seed: int = 0
    progress: bool = True
    """Show progress bars."""

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the first; its time and place may differ."""
        kept = {key: value for key, value in asdict(self).items() if key not in _CHANGEABLE}
        return kept | {"start": self.start and str(self.start)}
