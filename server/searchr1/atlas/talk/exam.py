"""Questions in conversations to score a model with: each question alone, and the same one in three forms of talk.

What is asked and what is right stay; only what stands before the question differs. Half of the ellipses are worded in
ways that no demonstration is.
"""

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from searchr1.atlas.questions import AtlasQuestion
from searchr1.atlas.talk.conversations import Form, Style, Talk
from searchr1.atlas.talk.wordings import it
from searchr1.atlas.world import World
from searchr1.files import write_json_lines
from searchr1.loop.conversation import Turn, fold_conversation

SYSTEM = "You are a helpful assistant."
EXAM_FORMS: tuple[Form, ...] = ("system", "history", "follow-up")
_PLAIN = Style(loose=0, wrapped=0, unmarked=0, careless=0, answers=("{answer}",))
_UNSEEN = Style(
    loose=0,
    wrapped=0,
    unmarked=0,
    careless=0,
    answers=("{answer}",),
    same_place=it.UNSEEN_SAME_PLACE,
    it=it.UNSEEN_IT,
)


@dataclass(frozen=True, slots=True)
class ExamQuestion:
    """A question of a conversation, and the conversation."""

    asked: AtlasQuestion
    turns: tuple[Turn, ...]

    def to_row(self) -> dict[str, Any]:
        """Return it as one JSON record: that of a question, the folded text as the question, and its ``messages``."""
        messages = [{"role": turn.role, "content": turn.text} for turn in self.turns]
        return {**asdict(self.asked), "question": fold_conversation(self.turns), "messages": messages}


def exam(world: World, questions: Iterable[AtlasQuestion], form: Form, *, seed: int = 0) -> list[ExamQuestion]:
    """Put each of ``questions``, of the test split, into a conversation of ``form``."""
    talks = (Talk(world, "test", _PLAIN), Talk(world, "test", _UNSEEN))
    return [
        ExamQuestion(question, tuple(_turns(talks[number % 2], question, form, random.Random(f"{seed}-{question.id}"))))
        for number, question in enumerate(questions)
    ]


def write_exam(questions: Iterable[ExamQuestion], path: Path) -> int:
    """Write ``questions`` to ``path`` as JSON lines, and return their number."""
    return write_json_lines(path, (question.to_row() for question in questions))


def _turns(talk: Talk, question: AtlasQuestion, form: Form, rng: random.Random) -> list[Turn]:
    last = Turn("user", question.question)
    if form == "system":
        return [Turn("system", SYSTEM), last]
    if form == "history":
        earlier = talk.exchange(rng)
        return [Turn("user", earlier.question), Turn("assistant", earlier.answer), last]
    turns = talk.turns(question, form, rng)
    return [turn for turn in turns if turn.role != "system"]
