"""What a check compares, and what is not as it has to be."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Findings:
    """Comparisons so far, and the faults among them."""

    faults: list[str] = field(default_factory=list)
    num_compared: int = 0

    def same(self, what: str, got: Any, wanted: Any) -> None:
        """Note a fault where the two differ."""
        self.num_compared += 1
        if got != wanted:
            self.faults.append(f"{what}: {_shortened(got)}, where it has to be {_shortened(wanted)}")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"
