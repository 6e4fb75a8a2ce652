"""Renaming of a demonstration's entities, so that a small policy learns to read names instead of recalling facts.

The train split has fewer than two hundred countries: a policy that sees their facts again and again learns them by
heart, and then answers wrongly about countries that it never saw. After the swap only the passages can tell. The other
names in the passages are swapped too: where only the wanted names were strange, strangeness would tell the answer.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from searchr1.atlas import templates
from searchr1.atlas.names import UNITS, made_up_name
from searchr1.atlas.records import RENAMED, DemonstratedTurn, Demonstration
from searchr1.atlas.world import World
from searchr1.loop.types import Passage

_KEPT = {"language": 0.5, "currency": 0.2}
"""Probability that a name stays: many countries share these, so a policy may well know the one that it reads."""
_JOINTS = ("/", "-")
"""Characters beside which a name is only a part of another word."""


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
    """Return ``demonstration`` with its entities renamed, everywhere and consistently, but for some that are shared.

    A new name is that of another train entity of the same type, that of a train city, or made of syllables. Only whole
    words are replaced, time zones and hyphenated names stay, and tags and templates hold no names. The result depends
    on the arguments alone.
    """
    text = "\n".join(demonstration.texts())
    renamed: dict[str, str] = {}
    for name, kind in demonstration.entities.items():
        is_kept = rng.random() < _KEPT.get(kind, 0.0)
        renamed[name] = name if is_kept else _new_name(kind, rng, pool, text, set(renamed.values()))
    rename = _renaming(renamed)
    turns = tuple(_rename_turn(turn, rename) for turn in demonstration.turns)
    return replace(
        demonstration,
        id=demonstration.id + RENAMED,
        question=rename(demonstration.question),
        golden_answers=tuple(rename(answer) for answer in demonstration.golden_answers),
        turns=turns,
        entities={renamed[name]: kind for name, kind in demonstration.entities.items()},
    )


def _rename_turn(turn: DemonstratedTurn, rename: Callable[[str], str]) -> DemonstratedTurn:
    passages = tuple(Passage(p.id, rename(p.title), rename(p.text), url=p.url, score=p.score) for p in turn.passages)
    return DemonstratedTurn(rename(turn.text), None if turn.query is None else rename(turn.query), passages)


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
                name = f"{name} {rng.choice(UNITS)}" if rng.random() < 0.7 else name.lower()
        if name not in taken and name not in text:
            return name


@dataclass(frozen=True, slots=True)
class KnownNames:
    """Every name of the train split that passages may mention, with its type."""

    types: Mapping[str, str]
    most_words: int

    @classmethod
    def of(cls, world: World) -> "KnownNames":
        """Collect the names of a world; those that are also words of the templates are left out."""
        types: dict[str, str] = {}
        for city in world.cities_in("train"):
            types[city.name] = "city"
        for country in world.countries_in("train"):
            types |= dict.fromkeys(country.languages, "language")
            types |= {country.capital: "city", country.currency: "currency", country.name: "country"}
        words = set(re.findall(r"\w+", " ".join(_strings(vars(templates)))))
        kept = {name: kind for name, kind in types.items() if name and name not in words}
        return cls(kept, max(len(re.findall(r"\w+", name)) for name in kept))

    def in_text(self, text: str) -> set[str]:
        """Return the names in ``text``, as whole words; of names that overlap, the longest from the left."""
        words = [match.span() for match in re.finditer(r"\w+", text)]
        found: set[str] = set()
        at = 0
        while at < len(words):
            for count in range(min(self.most_words, len(words) - at), 0, -1):
                start, end = words[at][0], words[at + count - 1][1]
                if (
                    text[start:end] in self.types
                    and text[start - 1 : start] not in _JOINTS
                    and text[end : end + 1] not in _JOINTS
                ):
                    found.add(text[start:end])
                    at += count - 1
                    break
            at += 1
        return found


def swap_bystanders(
    demonstration: Demonstration, rng: random.Random, pool: NamePool, known: KnownNames
) -> Demonstration:
    """Return ``demonstration`` with the names that it does not reason about renamed too, everywhere alike."""
    texts = list(demonstration.texts())
    found = sorted(set().union(*(known.in_text(text) for text in texts)) - set(demonstration.entities))
    text = "\n".join(texts)
    renamed = {name: name for name in demonstration.entities}
    for name in found:
        if rng.random() < _KEPT.get(known.types[name], 0.0):
            continue
        renamed[name] = _new_name(known.types[name], rng, pool, text, set(renamed.values()))
    rename = _renaming(renamed)
    turns = tuple(_rename_turn(turn, rename) for turn in demonstration.turns)
    return replace(demonstration, question=rename(demonstration.question), turns=turns)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _strings(item)]
    return [text for item in value for text in _strings(item)] if isinstance(value, (tuple, list)) else []


def _renaming(renamed: Mapping[str, str]) -> Callable[[str], str]:
    if not renamed:
        return lambda text: text
    longest_first = sorted(renamed, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w/-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w/-])")
    return lambda text: pattern.sub(lambda match: renamed[match.group()], text)
