"""Derived names: a currency or a language that is called after its country, as "Egyptian pound" is after Egypt.

Renaming gives every entity a name of its own, so that a model comes to think that a name which begins like the
country's goes on like it. This puts made-up derived names into some of the renamed demonstrations.
"""

import re
from dataclasses import replace

import numpy as np

from searchr1.atlas.names import MAX_CUT_LETTERS, SUFFIXES, derived_name
from searchr1.atlas.records import Demonstration

CHANCE = 0.6
"""Probability that a renamed demonstration gets a derived name."""

_QUERY = re.compile(r"<search> (currency|language) of (.+?) </search>")
_ANSWER = re.compile(r"<answer> (.+?) </answer>")


def with_derived_name(demonstration: Demonstration, random: np.random.Generator) -> Demonstration:
    """Rename the answer after its country, everywhere, in ``CHANCE`` of the renamed currency and language questions."""
    if len(demonstration.turns) < 2 or not demonstration.is_renamed or random.random() > CHANCE:
        return demonstration
    asked = _QUERY.search(demonstration.turns[-2].text)
    answered = _ANSWER.search(demonstration.turns[-1].text)
    if asked is None or answered is None:
        return demonstration
    derived = _derive(asked[2].removeprefix("the "), random)
    name = answered[1]
    new_name = f"{derived} {name.rsplit(' ', 1)[-1]}" if asked[1] == "currency" else derived
    old = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")

    def renamed(text: str) -> str:
        return old.sub(lambda _: new_name, text)

    turns = tuple(
        replace(
            turn,
            text=renamed(turn.text),
            query=turn.query and renamed(turn.query),
            passages=tuple(replace(passage, text=renamed(passage.text)) for passage in turn.passages),
        )
        for turn in demonstration.turns
    )
    return replace(
        demonstration,
        golden_answers=tuple(map(renamed, demonstration.golden_answers)),
        turns=turns,
        entities={renamed(name): kind for name, kind in demonstration.entities.items()},
    )


def _derive(country: str, random: np.random.Generator) -> str:
    cut = int(random.integers(0, MAX_CUT_LETTERS + 1))
    return derived_name(country, cut, str(random.choice(SUFFIXES)))
