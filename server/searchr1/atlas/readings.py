"""Readings: a few passages and what each of them says, several facts in a row, without a question or a search.

A demonstration of 560 tokens has two facts to read, a reading of 290 has five. Its passages come from renamed worlds
and are mostly about the same country, so that the names in them are easily confused.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence

from searchr1.atlas.corpus import Entry, entries
from searchr1.atlas.questions import FACTS
from searchr1.atlas.records import Reading, Statement
from searchr1.atlas.teacher import Entity, Teacher, quoted, statement
from searchr1.atlas.world import Country, World
from searchr1.loop.types import Passage

NUM_PASSAGES = 3
_FROM_ELSEWHERE = 0.5
"""Chance that the last passage is about a neighbour or any other country."""
_MAX_CITIES = 5
"""Number of cities of a country, the largest first, that readings are about."""


def readings(world: World, rng: random.Random) -> Iterator[Reading]:
    """Yield readings of the train split of ``world`` without end; passages that state nothing are not among them."""
    shelf = _Shelf(world)
    while True:
        passages = shelf.take(rng)
        statements = [
            Statement(f"Doc {number}", *stated)
            for number, entry in enumerate(passages, start=1)
            for stated in shelf.stated[entry.id]
        ]
        rng.shuffle(statements)
        shown = tuple(Passage(entry.id, f'"{entry.title}"', entry.text) for entry in passages)
        yield Reading(shown, tuple(statements))


class _Shelf:
    """The passages of a world by country, with what each of them states."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._teacher = Teacher(world)
        self._cities = {f"city-{city.id}": city for city in world.cities}
        self.stated: dict[str, list[tuple[str, str, str]]] = {}
        """Facts that each passage gives, by its id: the quote, what follows up to the value, and the value."""
        shelves: dict[str, list[Entry]] = {}
        large = {f"city-{city.id}" for group in world.cities_of.values() for city in group[:_MAX_CITIES]}
        for entry in entries(world, "all"):
            country = self._country(entry)
            if world.splits[country.code] != "train" or (entry.id.startswith("city-") and entry.id not in large):
                continue
            if stated := list(self._read(entry)):
                self.stated[entry.id] = stated
                shelves.setdefault(country.code, []).append(entry)
        self._about: Mapping[str, Sequence[Entry]] = {
            code: found for code, found in shelves.items() if len(found) >= NUM_PASSAGES
        }
        self._codes = sorted(self._about)

    def take(self, rng: random.Random) -> list[Entry]:
        """Draw passages about one country, and now and then one about another."""
        code = rng.choice(self._codes)
        chosen = rng.sample(self._about[code], NUM_PASSAGES)
        if rng.random() < _FROM_ELSEWHERE:
            near = [other for other in self._world.countries[code].neighbours if other in self._about]
            other = rng.choice(near) if near and rng.random() < 0.5 else rng.choice(self._codes)
            if other != code:
                chosen[-1] = rng.choice(self._about[other])
        rng.shuffle(chosen)
        return chosen

    def _country(self, entry: Entry) -> Country:
        city = self._cities.get(entry.id)
        return self._world.countries[city.country if city is not None else entry.id.split("-")[1]]

    def _read(self, entry: Entry) -> Iterator[tuple[str, str, str]]:
        country, city = self._country(entry), self._cities.get(entry.id)
        about = Entity(country.phrase if city is None else city.name, entry.title, country)
        passage = Passage(entry.id, f'"{entry.title}"', entry.text)
        for fact in FACTS if city is None else ("country",):
            value = self._teacher.read(fact, about, passage)
            if value is not None:
                yield self._teacher.quote(fact, about, passage), _up_to_value(fact, about), value
        if city is not None:
            for fact, value in (("timezone", city.timezone), ("population", f"{city.population:,}")):
                if value in entry.text:
                    yield quoted(passage, _holds(value)), _up_to_value(fact, about), value


def _holds(value: str) -> Callable[[str], bool]:
    return lambda text: value in text


def _up_to_value(fact: str, about: Entity) -> str:
    return f"So {statement(fact, about.phrase, '').rstrip()}"
