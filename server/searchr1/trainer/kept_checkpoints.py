"""The checkpoints that a run keeps: its last ones, and the one that scored best.

Each is a folder of its own, ``checkpoint-000100`` for step 100. ``checkpoint`` and ``checkpoint-best`` are links to the
last and the best of them, and a link changes in one move: whoever opens one finds a whole checkpoint at any moment.
"""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from searchr1.errors import ConfigurationError

LAST, BEST = "checkpoint", "checkpoint-best"

_FOLDER = re.compile(r"checkpoint-(\d{6,})")


class KeptCheckpoints:
    """The checkpoints in a run's ``out_dir``, of which the last ``keep`` stay, and the best."""

    def __init__(self, out_dir: Path, *, keep: int) -> None:
        self._out_dir, self._keep = out_dir, keep

    def folder(self, step: int) -> Path:
        """Return the place of the checkpoint of ``step``, whether it is there or not."""
        return self._out_dir / f"{LAST}-{step:06d}"

    def steps(self) -> list[int]:
        """Return the steps whose checkpoints are there, in order."""
        found = (_FOLDER.fullmatch(path.name) for path in self._out_dir.iterdir()) if self._out_dir.is_dir() else ()
        return sorted(int(match[1]) for match in found if match is not None)

    def recover(self, *, last: int, best: int | None) -> None:
        """Put right what a kill left behind in a run that goes on after ``last``; -1 is one that begins.

        What was half written goes, and so do the checkpoints of later steps, which the run takes again.
        """
        for part in sorted(self._out_dir.glob(f"{LAST}*.part")):
            shutil.rmtree(part)
        for aside in sorted(self._out_dir.glob(f"{LAST}*.old")):
            replaced = aside.with_suffix("")
            if replaced.exists() or replaced.is_symlink():
                shutil.rmtree(aside)
            else:
                aside.rename(replaced)
        steps = self.steps()
        earlier = [step for step in steps if step <= last]
        self.point(last=earlier[-1] if earlier else None, best=best if best in steps else None)
        if last >= 0:
            self._remove(step for step in steps if step > last)
        for link in (self._out_dir / LAST, self._out_dir / BEST):
            if link.is_symlink() and not link.exists():
                link.unlink()

    def point(self, *, last: int | None = None, best: int | None = None) -> None:
        """Let ``checkpoint`` and ``checkpoint-best`` be those of these steps; None leaves one where it is.

        Raises:
            ConfigurationError: the file system refuses the link.
        """
        for name, step in ((LAST, last), (BEST, best)):
            if step is not None:
                try:
                    self._point(name, step)
                except OSError as error:
                    link = self._out_dir / name
                    raise ConfigurationError(f"{link} can't be made a link: {error.strerror}") from error

    def prune(self, *, last: int, best: int | None) -> None:
        """Drop all but the last ones up to step ``last`` and that of step ``best``.

        Call it only once all is saved that a run needs to go on after ``last``: until then it may have to go on from
        an earlier step, of which another one was the best.
        """
        steps = self.steps()
        kept = {*[step for step in steps if step <= last][-self._keep :], best}
        self._remove(step for step in steps if step not in kept)

    def _remove(self, steps: Iterable[int]) -> None:
        for step in steps:
            # A kill amid this leaves what ``recover`` takes for half written, not for a checkpoint.
            going = self.folder(step).with_suffix(".part")
            self.folder(step).rename(going)
            shutil.rmtree(going)

    def _point(self, name: str, step: int) -> None:
        link, new = self._out_dir / name, self._out_dir / f".{name}.link"
        new.unlink(missing_ok=True)
        new.symlink_to(self.folder(step).name)
        if link.is_dir() and not link.is_symlink():  # Earlier versions had a folder in its place.
            aside = link.with_name(f"{name}.old")
            shutil.rmtree(aside, ignore_errors=True)
            link.rename(aside)
            new.replace(link)
            shutil.rmtree(aside)
        else:
            new.replace(link)
