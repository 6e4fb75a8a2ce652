"""Renames the entities of a demonstration, so that a small policy learns to read names instead of recalling facts.

The train split has fewer than two hundred countries: a policy that sees their facts again and again learns them by
heart, and then answers wrongly about countries that it never saw. After the swap only the passages can tell.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from searchr1.demo.teacher import Demonstration, Turn
from searchr1.demo.world import World
from searchr1.loop.types import Passage

_ONSETS = (*"bcdfghjklmnprstvwyz", "br", "ch", "dr", "gr", "kh", "kr", "ny", "sh", "st", "th", "tr")
_VOWELS = (*"aeiouaeiouáéíóöüã", "aa", "ai", "ei", "ou")
_CODAS = ("", "", "", "", "l", "m", "n", "r", "s", "t", "k", "ng", "nd")
_UNITS = ("dollar", "franc", "pound", "peso", "dinar", "rupee", "crown", "mark", "lira", "real", "dirham", "shilling")


@dataclass(frozen=True, slots=True)
class NamePool:
    """Real names to rename to, by entity type; none of them names a held-out entity."""

    names: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, world: World) -> "NamePool":
        """Collect the names of the train split."""
        countries = world.countries_in("train")
        pools = {
            "country": [c.name for c in countries if c.phrase == c.name],
            "city": [city.name for city in world.cities_in("train")],
            "currency": [c.currency for c in countries if c.currency],
            "language": [language for c in countries for language in c.languages],
        }
        held_out = world.held_out
        return cls(
            {kind: sorted({name for name in names if not held_out.occurs_in(name)}) for kind, names in pools.items()}
        )


def swap_entities(demonstration: Demonstration, rng: random.Random, pool: NamePool) -> Demonstration:
    """Return ``demonstration`` with each of its entities renamed, everywhere and consistently.

    A new name is that of another train entity of the same type, that of a train city, or made of syllables. Only whole
    words are replaced, time zones and hyphenated names stay, and tags and templates hold no names. The result depends
    on the arguments alone.
    """
    text = "\n".join(demonstration.texts())
    renamed: dict[str, str] = {}
    for name, kind in demonstration.entities.items():
        renamed[name] = _new_name(kind, rng, pool, text, set(renamed.values()))
    longest_first = sorted(renamed, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w/-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w/-])")

    def rename(old: str) -> str:
        return pattern.sub(lambda match: renamed[match.group()], old)

    turns = tuple(_rename_turn(turn, rename) for turn in demonstration.turns)
    return replace(
        demonstration,
        id=f"{demonstration.id}-swapped",
        question=rename(demonstration.question),
        golden_answers=tuple(rename(answer) for answer in demonstration.golden_answers),
        turns=turns,
        entities={renamed[name]: kind for name, kind in demonstration.entities.items()},
    )


def _rename_turn(turn: Turn, rename: Callable[[str], str]) -> Turn:
    passages = tuple(Passage(p.id, rename(p.title), rename(p.text), url=p.url, score=p.score) for p in turn.passages)
    return Turn(rename(turn.text), None if turn.query is None else rename(turn.query), passages)


def _new_name(kind: str, rng: random.Random, pool: NamePool, text: str, taken: set[str]) -> str:
    while True:
        draw = rng.random()
        if draw < 0.35:
            name = rng.choice(pool.names[kind])
        elif draw < 0.7 and kind != "currency":
            name = rng.choice(pool.names["city"])
        else:
            name = made_up_name(rng)
            if kind == "currency":
                name = f"{name} {rng.choice(_UNITS)}" if rng.random() < 0.7 else name.lower()
        if name not in taken and name not in text:
            return name


def made_up_name(rng: random.Random) -> str:
    """Compose a capitalised name of syllables, now and then of two parts."""
    parts = [_made_up_word(rng)]
    if rng.random() < 0.2:
        parts.append(_made_up_word(rng))
    return rng.choice((" ", " ", "-")).join(parts)


def _made_up_word(rng: random.Random) -> str:
    syllables = rng.choice((2, 2, 3, 3, 4))
    letters = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return "".join(letters).capitalize()
