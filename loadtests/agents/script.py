"""What the model writes: for every run and turn of a trace, fixed token ids, found by the prompt's text.

An untaught model writes no tags, and no two ways to serve would make it write the same. So the engine computes as
always, and its choice of each token is replaced (``forcing.py``). A question names its run, and the turn is the number
of searches that were closed since: whatever wraps the texts, chat messages or one long turn.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT, CHECKPOINT = "AGENTS_SCRIPT", "AGENTS_CHECKPOINT"
"""The variables by which an engine is told its script and its checkpoint."""
_RUN = re.compile(r"\(run (\d+)\)")
_CLOSED = "</search>"
_LEAST_WRITTEN = 4
"""Tokens of a turn at the end of a prompt that are no coincidence, even where the prompt ends as others do."""
_END = "\n"
"""What a prompt of whole texts ends with: the template's header, an observation that was not cut, the retry text."""


def named(question: str, run: str) -> str:
    """Return a question that names its run.

    >>> named("Who?", "17")
    '(run 17) Who?'
    """
    return f"(run {run}) {question}"


@dataclass(frozen=True, slots=True)
class Script:
    """Token ids of each turn of each run, and the id that ends a text."""

    turns: Mapping[str, Sequence[Sequence[int]]]
    eos_id: int

    def ids_after(self, prompt: str) -> Sequence[int] | None:
        """Return what is written after a prompt; None for one that belongs to no run.

        >>> script = Script({"17": [[5, 6], [7]]}, eos_id=0)
        >>> script.ids_after("Question: (run 17) Who?"), script.ids_after("(run 17) Who? <search> a </search> …")
        ([5, 6], [7])
        """
        found = _RUN.search(prompt)
        turns = self.turns.get(found[1]) if found else None
        if not found or not turns:
            return None
        return turns[min(prompt.count(_CLOSED, found.end()), len(turns) - 1)]

    def ids_left(self, prompt: str, prompt_ids: Sequence[int]) -> Sequence[int] | None:
        r"""Return what is written after a prompt that may end within a turn, as that of one that was asked again does.

        >>> script = Script({"17": [[5, 6, 7, 8, 9]]}, eos_id=0)
        >>> script.ids_left("(run 17) Who?\n", [1, 2]), script.ids_left("(run 17) Who?\nabcd", [1, 2, 5, 6, 7, 8])
        ([5, 6, 7, 8, 9], [9])
        """
        ids = self.ids_after(prompt)
        least = _LEAST_WRITTEN if prompt.endswith(_END) else 1
        for num in range(min(len(ids or ()), len(prompt_ids)), least - 1, -1):
            if ids is not None and list(prompt_ids[-num:]) == list(ids[:num]):
                return ids[num:]
        return ids

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({"turns": self.turns, "eos_id": self.eos_id}), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Script":
        """Read what ``write`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
