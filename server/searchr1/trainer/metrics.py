"""A training run's metrics: one JSON line per step, and TensorBoard's scalars beside them."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from searchr1.errors import ConfigurationError
from searchr1.files import write_json_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE = "metrics.jsonl"
FOLDER = "tensorboard"

logger = logging.getLogger(__name__)


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Return the records of ``path``; a last line that a kill cut off is left out.

    Raises:
        ValueError: a line is no record; the message names it.
    """
    lines = path.read_text("utf-8").splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON") from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int | float):
            raise ValueError(f"{path}, line {number}: not a training step's metrics, which have a step")
        records.append(record)
    return records


class MetricLog:
    """The metrics of a run in ``out_dir``; nothing is written before ``rewind`` or the first ``log``.

    The first process of a run logs, no other.
    """

    def __init__(self, out_dir: Path, *, tensorboard: bool = True) -> None:
        self._path, self._folder = out_dir / FILE, out_dir / FOLDER
        self._wants_tensorboard = tensorboard
        self._is_open = False
        self._writer: SummaryWriter | None = None
        self._records: list[dict[str, float | None]] = []

    def rewind(self, step: int) -> None:
        """Keep the lines of steps up to ``step`` and drop the rest, with a last line that was cut off; -1 drops all.

        A run that was killed and resumed so leaves the lines of one that was not.
        """
        records = read_metrics(self._path) if self._path.is_file() else []
        self._records = [record for record in records if (record["step"] or 0) <= step]
        write_json_lines(self._path, self._records)
        self.close()
        self._is_open = True
        if self._wants_tensorboard:
            self._writer = _open_tensorboard(self._folder, purge_from=step + 1)
            self._wants_tensorboard = self._writer is not None

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Add a step's metrics; what is not finite is written as null, and warned of.

        A log that was not rewound drops what the folder holds from ``step`` on.

        Raises:
            ConfigurationError: the files can't be written.
        """
        if not self._is_open:
            self.rewind(step - 1)
        kept = {name: float(value) if math.isfinite(value) else None for name, value in record.items()}
        if lost := [name for name, value in kept.items() if value is None]:
            logger.warning("step %d: not finite: %s", step, ", ".join(lost))
        kept["step"] = float(step)
        self._records.append(kept)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(kept) + "\n")
            if self._writer is not None:
                for name, value in kept.items():
                    if value is not None and name != "step":
                        self._writer.add_scalar(name, value, step)
                self._writer.flush()
        except OSError as error:
            raise ConfigurationError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def records(self) -> list[dict[str, float | None]]:
        """Return all records of the run so far."""
        return list(self._records)

    def close(self) -> None:
        """Finish TensorBoard's file; a later ``log`` goes to the JSON lines alone."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _open_tensorboard(folder: Path, *, purge_from: int) -> "SummaryWriter | None":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed: metrics go to %s alone", FILE)
        return None
    writer: SummaryWriter = SummaryWriter(str(folder), purge_step=purge_from)
    return writer
