"""Conversations as the single question that checkpoints are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

INSTRUCTION_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    text: str


def fold_conversation(turns: Sequence[Turn]) -> str:
    """Return the last turn that is no instruction, after the instructions and the earlier turns as quoted context.

    System and developer turns count as instructions, wherever they stand. Blank turns are left out. A conversation of
    one turn is that turn's text as it is; one whose last turn is blank gives a blank question, which admission refuses.

    Raises:
        ValueError: there is nothing but instructions.
    """
    dialogue = [turn for turn in turns if turn.role not in INSTRUCTION_ROLES]
    if not dialogue:
        raise ValueError("the conversation holds no question")
    question = dialogue[-1].text
    if not question.strip():
        return question
    parts: list[str] = []
    if instructions := [turn.text.strip() for turn in turns if turn.role in INSTRUCTION_ROLES and turn.text.strip()]:
        parts.append("\n".join(["Follow these instructions:", *instructions]))
    if earlier := [f"{turn.role}: {turn.text.strip()}" for turn in dialogue[:-1] if turn.text.strip()]:
        parts.append("\n".join(["Given this conversation:", *earlier]))
    return "\n\n".join([*parts, question])
