"""Folding a conversation into one question."""

import pytest

from searchr1.loop.conversation import Turn, fold_conversation


def test_a_single_question_stays_as_it_is() -> None:
    assert fold_conversation([Turn("user", "  Where is Timbuktu?\n")]) == "  Where is Timbuktu?\n"


def test_instructions_come_first_and_earlier_turns_are_quoted() -> None:
    folded = fold_conversation(
        [
            Turn("system", " Be brief. "),
            Turn("user", "Where is Timbuktu?"),
            Turn("assistant", "Mali\n"),
            Turn("user", "And its currency?"),
        ]
    )
    assert folded == (
        "Follow these instructions:\nBe brief.\n\n"
        "Given this conversation:\nuser: Where is Timbuktu?\nassistant: Mali\n\n"
        "And its currency?"
    )


def test_an_instruction_after_the_question_is_still_an_instruction() -> None:
    folded = fold_conversation([Turn("user", "Where is Timbuktu?"), Turn("developer", "Answer in French.")])
    assert folded == "Follow these instructions:\nAnswer in French.\n\nWhere is Timbuktu?"


def test_blank_turns_are_left_out() -> None:
    turns = [Turn("system", " "), Turn("user", ""), Turn("assistant", "\n"), Turn("user", "Where is Timbuktu?")]
    assert fold_conversation(turns) == "Where is Timbuktu?"


def test_a_blank_question_stays_blank_whatever_stands_before_it() -> None:
    assert fold_conversation([Turn("system", "Be brief."), Turn("user", "Mali?"), Turn("user", " ")]).strip() == ""


@pytest.mark.parametrize("turns", [[], [Turn("system", "Be brief.")]])
def test_a_conversation_without_a_question_is_refused(turns: list[Turn]) -> None:
    with pytest.raises(ValueError, match="no question"):
        fold_conversation(turns)
