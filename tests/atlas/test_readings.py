"""Readings: what is stated of a passage stands in it, of the train split alone."""

import random
from collections import Counter
from itertools import islice

import pytest

from searchr1.atlas.readings import NUM_PASSAGES, readings
from searchr1.atlas.records import Reading
from searchr1.atlas.renamed import renamed_world
from searchr1.atlas.world import World


@pytest.fixture(scope="module")
def some(world: World) -> list[Reading]:
    return list(islice(readings(renamed_world(world, seed=3), random.Random(0)), 300))


def test_every_value_stands_in_its_passage(some: list[Reading]) -> None:
    for reading in some:
        assert len(reading.passages) == NUM_PASSAGES
        assert len(set(reading.passages)) == NUM_PASSAGES
        for statement in reading.statements:
            number = int(statement.document.removeprefix("Doc "))
            passage = reading.passages[number - 1]
            assert f"(Title: {passage.title}) {passage.text}".startswith(statement.quote)
            assert statement.value in statement.quote.partition(") ")[2]
            assert passage.title.strip('"') in statement.given


def test_they_state_all_kinds_of_facts_several_at_once(some: list[Reading]) -> None:
    words = ("capital of", "currency of", "language of", "population of", "time zone of", " borders", " is in")
    found = Counter(word for reading in some for s in reading.statements for word in words if word in s.given)
    assert min(found[word] for word in words) > 30
    assert sum(len(reading.statements) for reading in some) > 3 * len(some)


def test_the_same_seed_gives_the_same_readings(world: World) -> None:
    one, same, other = (list(islice(readings(world, random.Random(seed)), 20)) for seed in (1, 1, 2))
    assert one == same != other


def test_held_out_countries_and_their_cities_are_not_read(world: World) -> None:
    held_out = {country.name for split in ("validation", "test") for country in world.countries_in(split)}
    held_out |= {city.name for split in ("validation", "test") for city in world.cities_in(split)}
    titles = {p.title.strip('"') for r in islice(readings(world, random.Random(0)), 500) for p in r.passages}
    assert len(titles) > 200
    assert not titles & held_out
