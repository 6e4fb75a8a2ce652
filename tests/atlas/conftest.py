"""The Atlas world, loaded once for all its tests, and a search that knows it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import pytest

from searchr1.atlas.corpus import Entry, entries
from searchr1.atlas.questions import AtlasQuestion
from searchr1.atlas.records import Demonstration
from searchr1.atlas.teacher import Teacher
from searchr1.atlas.world import World, load_world
from searchr1.loop.types import Passage

Oracle = Callable[[str], Sequence[Passage]]


@pytest.fixture(scope="session")
def world() -> World:
    return load_world()


@pytest.fixture(scope="session")
def all_entries(world: World) -> tuple[Entry, ...]:
    return tuple(entries(world, "all"))


@pytest.fixture(scope="session")
def train_entries(world: World) -> tuple[Entry, ...]:
    return tuple(entries(world, "train"))


@pytest.fixture(scope="session")
def oracle(world: World, all_entries: Sequence[Entry]) -> Oracle:
    """A search that returns every passage titled with the entity that the query is about, and those of its country."""
    return oracle_over(world, all_entries)


def oracle_over(world: World, corpus: Sequence[Entry]) -> Oracle:
    by_title: Mapping[str, list[Passage]] = defaultdict(list)
    for entry in corpus:
        by_title[entry.title].append(Passage(entry.id, f'"{entry.title}"', entry.text))
    country_of_capital = {country.capital: country.name for country in world.countries.values()}

    def search(query: str) -> list[Passage]:
        name = query.split(" of ", 1)[-1].removeprefix("the ")
        return by_title.get(name, []) + by_title.get(country_of_capital.get(name, ""), [])

    return search


def demonstrate(teacher: Teacher, question: AtlasQuestion, search: Oracle) -> Demonstration | None:
    """Answer ``question`` by ``search``; None if a fact that it needs is not found."""
    steps = teacher.steps(question)
    try:
        query = next(steps)
        while True:
            query = steps.send(search(query))
    except StopIteration as done:
        result: Demonstration | None = done.value
        return result
