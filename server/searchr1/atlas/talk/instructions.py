"""Messages that are no question: instructions, which have no effect, and small talk before a question."""

import random
from dataclasses import dataclass

from searchr1.atlas.talk import prose
from searchr1.atlas.talk.wordings import chatter, system


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer, as messages."""

    question: str
    answer: str


def instructions(rng: random.Random) -> str:
    """Draw a system message; what it asks for has no effect."""
    draw = rng.random()
    sentences = [rng.choice(system.SYSTEM_SENTENCES) for _ in range(rng.choice((1, 2, 2, 3, 4, 6)))]
    if draw < 0.4:
        text = rng.choice(system.SYSTEM_WHOLE)
    elif draw < 0.6:
        who = f"You are a {rng.choice(system.SYSTEM_HOW)} {rng.choice(system.SYSTEM_WHO)}."
        text = " ".join([who, *sentences[:-1]])
    elif draw < 0.7:
        text = " ".join(sentences)
    elif draw < 0.82:
        heading = rng.choice(
            ("# Instructions", "## Rules", "Rules:", "**Guidelines**", "### Task:", "Follow these rules:")
        )
        mark = rng.choice(("- ", "* ", "1. "))
        text = "\n".join([heading, *(mark + sentence for sentence in sentences)])
    else:
        text = rng.choice((" ", "\n", "\n\n")).join(prose.sentences(rng, rng.choice((1, 2, 3, 4))))
    if rng.random() < 0.15:
        text = rng.choice((f"{text}\n{_date(rng)}", f"{_date(rng)}\n\n{text}", f"{text} {_date(rng)}"))
    return text


def small_talk(rng: random.Random) -> Exchange:
    """Draw an exchange that has nothing to do with Atlas."""
    draw = rng.random()
    if draw < 0.5:
        return Exchange(*rng.choice(chatter.SMALL_TALK))
    if draw < 0.65:
        return Exchange(rng.choice(chatter.GREETINGS), chatter.REPLY_GREETING)
    if draw < 0.75:
        return Exchange(rng.choice(chatter.OTHER), chatter.REPLY_OTHER)
    return Exchange(prose.sentences(rng, 1)[0], " ".join(prose.sentences(rng, rng.choice((1, 1, 2)))))


def _date(rng: random.Random) -> str:
    line = rng.choice(system.DATE_LINES)
    year, month, day = rng.randint(2023, 2027), rng.randint(1, 12), rng.randint(1, 28)
    return line.format(year=year, month=month, day=day, name=rng.choice(system.MONTHS))
