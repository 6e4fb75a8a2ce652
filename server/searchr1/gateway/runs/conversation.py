"""Conversations within bounds: what of one the model is shown, and what gives way where not all of it fits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn, fold_conversation

ConversationMode = Literal["last", "fold", "rewrite"]
SystemMode = Literal["ignore", "fold"]
Fits = Callable[[str], bool]
"""Whether a question is within the operator's bounds."""


def shown(turns: Sequence[Turn], *, conversation: ConversationMode, system: SystemMode) -> list[Turn]:
    """Return the turns that the model is shown: without instructions, or earlier turns, as the operator says."""
    kept = [turn for turn in turns if system == "fold" or turn.role not in INSTRUCTION_ROLES]
    if conversation != "last":
        return kept
    last = _last_spoken(kept)
    return [turn for place, turn in enumerate(kept) if place == last or turn.role in INSTRUCTION_ROLES]


def harmless(turns: Sequence[Turn], reserved: Sequence[str]) -> list[Turn]:
    """Return ``turns`` with the earlier ones made acceptable: what was said long ago must not refuse what is asked.

    NUL characters and halves of surrogate pairs go, and ``reserved`` texts are broken by a space. The question and the
    instructions stay: these the client can change.
    """
    kept = (_last_spoken(turns), *(place for place, turn in enumerate(turns) if turn.role in INSTRUCTION_ROLES))
    return [
        turn if place in kept else replace(turn, text=_cleaned(turn.text, reserved)) for place, turn in enumerate(turns)
    ]


def fitted(turns: Sequence[Turn], fits: Fits) -> list[Turn]:
    """Return ``turns`` without the oldest, and where that does not do, with their instructions cut, so that they fit.

    The question is never touched: where it is itself too long, it is returned alone.
    """
    if fits(fold_conversation(turns)):
        return list(turns)
    dialogue = [turn for turn in turns if turn.role not in INSTRUCTION_ROLES]
    instructions = [turn for turn in turns if turn.role in INSTRUCTION_ROLES]

    def without_oldest(number: int) -> list[Turn]:
        return [*instructions, *dialogue[number:]]

    dropped = _least(len(dialogue) - 1, lambda number: fits(fold_conversation(without_oldest(number))))
    if dropped is not None:
        # An answer whose question is gone says nothing.
        orphan = dropped < len(dialogue) - 1 and dialogue[dropped].role == "assistant"
        return without_oldest(dropped + orphan)
    text = "\n".join(turn.text.strip() for turn in instructions)

    def cut_by(number: int) -> list[Turn]:
        return [Turn("system", text[: len(text) - number]), dialogue[-1]]

    cut = _least(len(text), lambda number: fits(fold_conversation(cut_by(number))))
    return [dialogue[-1]] if cut is None else cut_by(cut)


def _least(most: int, works: Callable[[int], bool]) -> int | None:
    """Return the least number up to ``most`` that works, where all above one that works do; None if none does."""
    if not works(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _last_spoken(turns: Sequence[Turn]) -> int | None:
    return max((place for place, turn in enumerate(turns) if turn.role not in INSTRUCTION_ROLES), default=None)


def _cleaned(text: str, reserved: Sequence[str]) -> str:
    text = "".join(c for c in text if c != "\x00" and not "\ud800" <= c <= "\udfff")
    for token in reserved:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
