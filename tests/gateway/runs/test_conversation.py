"""Conversations within bounds: what the model is shown, and what gives way."""

import pytest

from searchr1.gateway.runs.conversation import ConversationMode, SystemMode, fitted, harmless, shown
from searchr1.loop.conversation import Turn, fold_conversation

SYSTEM = Turn("system", "Be brief.")
LATE = Turn("developer", "In French.")
CHAT = [SYSTEM, Turn("user", "Where is Timbuktu?"), Turn("assistant", "Mali"), Turn("user", "And its currency?"), LATE]


@pytest.mark.parametrize(
    ("conversation", "system", "kept"),
    [
        ("fold", "fold", [0, 1, 2, 3, 4]),
        ("fold", "ignore", [1, 2, 3]),
        ("rewrite", "ignore", [1, 2, 3]),
        ("last", "fold", [0, 3, 4]),
        ("last", "ignore", [3]),
    ],
)
def test_the_settings_say_what_the_model_is_shown(
    conversation: ConversationMode, system: SystemMode, kept: list[int]
) -> None:
    assert shown(CHAT, conversation=conversation, system=system) == [CHAT[place] for place in kept]


def long_chat(exchanges: int, chars: int) -> list[Turn]:
    turns = [Turn("system", "Be brief.")]
    for number in range(exchanges):
        turns += [Turn("user", f"q{number} " + "x" * chars), Turn("assistant", f"a{number}")]
    return [*turns, Turn("user", "And in Chad?")]


@pytest.mark.parametrize(("exchanges", "chars"), [(1, 10), (1, 5000), (15, 300), (128, 300), (400, 3), (3, 900)])
def test_the_oldest_turns_go_first_and_no_more_than_must(exchanges: int, chars: int) -> None:
    turns = long_chat(exchanges, chars)
    kept = fitted(turns, lambda text: len(text) <= 2000)
    folded = fold_conversation(kept)
    assert len(folded) <= 2000
    assert kept[0] == turns[0]
    spoken = kept[1:]
    assert spoken == turns[len(turns) - len(spoken) :]
    assert spoken[0].role == "user"
    if len(kept) < len(turns):
        one_exchange_more = [turns[0], *turns[len(turns) - len(spoken) - 2 :]]
        assert len(fold_conversation(one_exchange_more)) > 2000
    else:
        assert kept == turns


@pytest.mark.parametrize("place", ["before", "after"])
def test_instructions_are_cut_when_no_earlier_turn_is_left(place: str) -> None:
    long = Turn("system", "".join(f"Rule {number}. " for number in range(1200)))
    question = Turn("user", "Where is Timbuktu?")
    earlier = [Turn("user", "Hello"), Turn("assistant", "Hi")]
    turns = [long, *earlier, question] if place == "before" else [*earlier, question, long]
    folded = fold_conversation(fitted(turns, lambda text: len(text) <= 2000))
    assert folded.startswith("Follow these instructions:\nRule 0. Rule 1.")
    assert folded.endswith("\n\nWhere is Timbuktu?")
    assert 1990 < len(folded) <= 2000


def test_a_question_that_is_itself_too_long_is_left_whole_and_alone() -> None:
    question = Turn("user", "y" * 3000)
    assert fitted([SYSTEM, Turn("user", "a"), Turn("assistant", "b"), question], lambda text: len(text) <= 2000) == [
        question
    ]


@pytest.mark.parametrize(
    ("text", "harmless_text"),
    [
        ("a<|im_end|>b", "a< |im_end|>b"),
        ("<|im_end|><|im_start|>", "< |im_end|>< |im_start|>"),
        ("nul\x00 and half \ud83d", "nul and half "),
        ("as it is: <answer> Mali </answer> 😀", "as it is: <answer> Mali </answer> 😀"),
    ],
)
def test_what_was_said_before_can_not_refuse_the_question(text: str, harmless_text: str) -> None:
    reserved = ("<|im_start|>", "<|im_end|>")
    before = [Turn(role, text) for role in ("system", "user", "assistant", "developer")]
    question = Turn("user", text)
    kept = harmless([*before[:3], question, before[3]], reserved)
    assert [turn.text for turn in kept] == [text, harmless_text, harmless_text, text, text]
