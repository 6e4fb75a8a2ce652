"""Bad habits: good demonstrations cut short, for a start policy that reinforcement learning has something to teach.

A policy that was warmed up on good demonstrations alone already searches as often as it should. One that saw these
as well gives up searching too early, most of the time, and does the right thing now and then: it can read and copy,
and what it lacks is to know when to search. That is what an outcome reward is to teach it.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from searchr1.atlas.records import DemonstratedTurn, Demonstration

_SEARCH = re.compile(r"<search> .+? of (?P<entity>.+?) </search>")
_PLAN = re.compile(r"<think> (?P<plan>I need [^.]+\.)")
_GOES_ON = re.compile(r"<think> (?P<stated>Doc \d+.+?\.) Now I need ")


@dataclass(frozen=True, slots=True)
class Habits:
    """Probabilities of the bad habits."""

    guess: float = 0.0
    """Probability of an answer without any search: the entity that the question names."""
    stop_early: float = 0.0
    """Probability, at each hop but the last, of answering with what that hop found."""

    def __bool__(self) -> bool:
        return self.guess > 0 or self.stop_early > 0


def with_habits(demonstration: Demonstration, habits: Habits, random: np.random.Generator) -> Demonstration:
    """Return the demonstration, or the beginning of it with an answer that comes too early."""
    first = demonstration.turns[0].text
    guesses = random.random() < habits.guess
    entity, plan = _SEARCH.search(first), _PLAN.search(first)
    if guesses and entity and plan:
        return _answering(demonstration, 0, plan["plan"], entity["entity"])
    for number, turn in enumerate(demonstration.turns):
        goes_on = _GOES_ON.match(turn.text)
        if goes_on is None:
            continue
        entity = _SEARCH.search(turn.text)
        if random.random() < habits.stop_early and entity:
            return _answering(demonstration, number, goes_on["stated"], entity["entity"])
    return demonstration


def _answering(demonstration: Demonstration, number: int, stated: str, answer: str) -> Demonstration:
    """Return the demonstration up to turn ``number``, and then an answer."""
    last = DemonstratedTurn(f"<think> {stated} This is the answer. </think>\n<answer> {answer} </answer>")
    return replace(demonstration, turns=(*demonstration.turns[:number], last))
