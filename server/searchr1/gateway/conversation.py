"""Conversations as the single question that checkpoints are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    text: str


def fold_conversation(turns: Sequence[Turn]) -> str:
    """The last turn is the question; earlier ones stand before it as quoted context."""
    earlier = [f"{turn.role}: {turn.text.strip()}" for turn in turns[:-1] if turn.text.strip()]
    return "Given this conversation:\n" + "\n".join(earlier) + f"\n\n{turns[-1].text}" if earlier else turns[-1].text
