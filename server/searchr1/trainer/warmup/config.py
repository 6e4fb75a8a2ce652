"""The settings of a warm-up run."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from searchr1.atlas.habits import Habits
from searchr1.trainer.warmup.model import ModelShape

_CHANGEABLE = frozenset(
    ("data_dir", "out_dir", "max_minutes", "progress", "device", "num_processes", "save_every_steps", "compile")
)
"""Settings that a resumed run may have otherwise than the run that it resumes."""


@dataclass(frozen=True, slots=True)
class WarmupConfig:
    """Settings of one warm-up run."""

    data_dir: Path
    """Folder with ``corpus-train.jsonl`` and ``demonstrations-{train,validation}.jsonl``."""
    out_dir: Path
    """Folder for samples, training state, metrics, the plot and the finished ``checkpoint`` folder."""
    shape: ModelShape = field(default_factory=lambda: ModelShape(vocab_size=2048))
    start: Path | None = None
    """A checkpoint of an earlier run to go on from: its tokenizer and its weights, of which ``shape`` may want more
    (``growth.py``). None: from scratch."""
    induction: bool = True
    """Start from weights that can already copy (``initialize.py``) instead of purely random ones."""
    max_steps: int | None = None
    """Optimizer steps of the whole run."""
    max_minutes: float | None = None
    """Wall-clock minutes of training in all, resumed time included. The schedule follows whichever bound is nearer."""
    batch_size: int = 16
    """Demonstrations per optimizer step, over all processes."""
    max_tokens: int = 1100
    """Longer demonstrations are left out."""
    num_demonstrations: int | None = None
    """Demonstrations of the training file that are used, from its start; None: all."""
    first_turns: float = 0.0
    """Share of the training demonstrations that end after their first turn; longer ones than ``max_whole_tokens`` do
    too, where it is above 0. A policy that can read already learns most per token there: what is asked."""
    max_whole_tokens: int = 800
    muon_lr: float = 0.01
    """Peak learning rate of the weight matrices; 0 gives them to AdamW."""
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
    """Norm that gradients are clipped to."""
    num_processes: int = 1
    """Data-parallel processes; one per core on a CPU, where they wait less for each other than threads do."""
    device: str = "cpu"
    """Device of the model: cpu, cuda."""
    validate_every_steps: int = 100
    """Steps between validations; the last step is always validated."""
    num_validation_samples: int = 256
    """Demonstrations of a validation."""
    save_every_steps: int = 200
    """Steps between saves; the last step is always saved."""
    seed: int = 0
    """Seed of weights, data order and drill."""
    progress: bool = True
    """Show progress bars."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that a resumed run must share with the first; its time and place may differ."""
        kept = {key: value for key, value in asdict(self).items() if key not in _CHANGEABLE}
        return kept | {"start": self.start and str(self.start)}
