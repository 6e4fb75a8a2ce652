"""A teacher that answers Atlas questions by searching: plan, search, read, go on, answer. The demo policy learns it.

The teacher knows the world, but states a fact only when one of the passages in front of it says so, and quotes that
first: a small policy copies a passage from its beginning more surely than it picks a name out of three of them. Where
no passage gives the fact, it says so and searches once more in other words; where that fails too, there is no
demonstration.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from searchr1.atlas.questions import AtlasQuestion
from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.atlas.world import City, Country, World
from searchr1.loop.profiles.search_r1 import titled
from searchr1.loop.types import Passage

MAX_SEARCHES = 4
"""Searches of one demonstration, retries among them: the trained number of turns."""

QUERIES: Mapping[str, tuple[str, str]] = {
    "country": ("country of {x}", "{x} city"),
    "capital": ("capital of {x}", "capital city and government of {x}"),
    "continent": ("continent of {x}", "{x} country area and continent"),
    "currency": ("currency of {x}", "money used in {x}"),
    "language": ("language of {x}", "languages spoken in {x}"),
    "neighbour": ("borders of {x}", "neighbouring countries of {x}"),
    "timezone": ("time zone of {x}", "{x} local time"),
    "population": ("population of {x}", "{x} inhabitants"),
}
"""Queries for each fact: the first one, and the one for a second try."""
_NOUNS: Mapping[str, str] = {"timezone": "the time zone", "language": "a language", "neighbour": "a neighbour"}
_STATEMENTS: Mapping[str, str] = {
    "country": "{x} is in {value}",
    "continent": "{x} is in {value}",
    "neighbour": "{x} borders {value}",
}
_KEYWORDS: Mapping[str, re.Pattern[str]] = {
    "capital": re.compile(r"capital"),
    "currency": re.compile(r"currency"),
    "language": re.compile(r"[Ll]anguage"),
    "neighbour": re.compile(r"border|[Nn]eighbour"),
    "timezone": re.compile(r"time zone"),
}
_SENTENCE_END = re.compile(r"\.(?= |$)")
_ENTITY_TYPES: Mapping[str, str] = {
    "country": "country",
    "capital": "city",
    "currency": "currency",
    "language": "language",
    "neighbour": "country",
}


Searching = Generator[str, Sequence[Passage], Demonstration | None]
"""A generator that yields queries, takes their passages, and returns the demonstration or None."""


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity that the teacher looks something up about."""

    phrase: str
    """Name as it stands in a sentence: ``the Netherlands``."""
    title: str
    """Title of its passages, without the quotes."""
    country: Country | None
    """The country itself, or the one that a city is in."""


@dataclass(slots=True)
class _Notes:
    turns: list[DemonstratedTurn] = field(default_factory=list)
    entities: dict[str, str] = field(default_factory=dict)


class Teacher:
    """A writer of demonstrations over a world, one for each question."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._by_phrase = {country.phrase: country for country in world.countries.values()}
        self._by_capital = {country.capital: country for country in world.countries.values()}

    def steps(self, question: AtlasQuestion) -> Searching:
        """Answer ``question`` as a generator, so that the searches of many questions can be run together."""
        chain = question.kind.split("-")[1:]
        start = question.kind.split("-")[0]
        entity = self._start(start, question.entities[0])
        notes = _Notes(entities={entity.title: "country" if start == "country" else "city"})
        think = _plan("I need", chain, entity.phrase)
        for index, fact in enumerate(chain):
            found = yield from self._look_up(notes, think, fact, entity)
            if found is None:
                return None
            quote, value = found
            if fact in _ENTITY_TYPES:
                notes.entities[value.removeprefix("the ")] = _ENTITY_TYPES[fact]
            stated = f"{quote} So {statement(fact, entity.phrase, value)}."
            rest = chain[index + 1 :]
            if rest:
                entity = self._next_entity(fact, value, entity)
                think = f"{stated} {_plan('Now I need', rest, entity.phrase)}"
        notes.turns.append(
            DemonstratedTurn(f"<think> {stated} This is the answer. </think>\n<answer> {value} </answer>", None)
        )
        return Demonstration(
            question.id,
            question.question,
            question.golden_answers,
            question.hops,
            question.kind,
            tuple(notes.turns),
            notes.entities,
        )

    def _look_up(
        self, notes: _Notes, think: str, fact: str, entity: Entity
    ) -> Generator[str, Sequence[Passage], tuple[str, str] | None]:
        """Search for a fact; return the passage that gives it, quoted, and its value."""
        for wording in QUERIES[fact]:
            if len(notes.turns) == MAX_SEARCHES:
                return None
            query = wording.format(x=entity.phrase)
            passages = tuple((yield query))
            text = f"<think> {think} </think>\n<search> {query} </search>"
            notes.turns.append(DemonstratedTurn(text, query, passages))
            for number, passage in enumerate(passages, start=1):
                value = self.read(fact, entity, passage)
                if value is not None:
                    return f"Doc {number}{self.quote(fact, entity, passage)}", value
            think = f"The passages do not give {_noun(fact)} of {entity.phrase}. I search again."
        return None

    def _start(self, start: str, phrase: str) -> Entity:
        if start == "country":
            return _of_country(self._by_phrase[phrase])
        if start == "capital":
            return Entity(phrase, phrase, self._by_capital[phrase])
        return self._of_city(self._world.city_named[phrase])

    def _of_city(self, city: City) -> Entity:
        return Entity(city.name, city.name, self._world.countries[city.country])

    def _next_entity(self, fact: str, value: str, entity: Entity) -> Entity:
        if fact == "capital":
            return Entity(value, value, entity.country)
        return _of_country(self._by_phrase[value])

    def read(self, fact: str, entity: Entity, passage: Passage) -> str | None:
        """Return the value of ``fact`` for ``entity`` as ``passage`` states it, or None if it does not."""
        title = passage.title.strip('"')
        country = entity.country
        if country is None:
            return None
        if title != entity.title:
            is_capital = fact == "country" and title == country.name and entity.phrase == country.capital
            if not (is_capital and "capital" in passage.text and _at(passage.text, entity.phrase) >= 0):
                return None
        keyword = _KEYWORDS.get(fact)
        if keyword is not None and keyword.search(passage.text) is None:
            return None
        text = passage.text
        if fact in ("continent", "neighbour"):
            text = text.replace(country.phrase, "").replace(country.name, "")
        places = [(_at(text, value), -len(value), value) for value in self._values(fact, entity, country)]
        stated = [place for place in places if place[0] >= 0]
        return min(stated)[2] if stated else None

    def quote(self, fact: str, entity: Entity, passage: Passage) -> str:
        """Quote ``passage`` up to the sentence that gives ``fact``."""
        return quoted(passage, lambda text: self.read(fact, entity, replace(passage, text=text)) is not None)

    def _values(self, fact: str, entity: Entity, country: Country) -> Sequence[str]:
        if fact == "country":
            return (country.phrase,)
        if fact == "capital":
            return (country.capital,)
        if fact == "continent":
            return (country.continent,)
        if fact == "currency":
            return (country.currency,)
        if fact == "language":
            return country.languages
        if fact == "neighbour":
            return [self._world.countries[code].phrase for code in country.neighbours]
        if fact == "population" and entity.title == country.name and entity.phrase != country.capital:
            return (f"{country.population:,}",)
        city = self._world.capital_city(country)
        if city is None:
            return ()
        return (city.timezone,) if fact == "timezone" else (f"{city.population:,}",)


def _of_country(country: Country) -> Entity:
    return Entity(country.phrase, country.name, country)


def _at(text: str, value: str) -> int:
    """Return where ``value`` stands in ``text`` as whole words, or -1."""
    match = re.search(rf"(?<![\w/-]){re.escape(value)}(?![\w/-])", text)
    return match.start() if match is not None else -1


def quoted(passage: Passage, suffices: Callable[[str], bool]) -> str:
    """Return ``passage`` as an observation has it after its number, up to the sentence by which it ``suffices``."""
    text = next((text for text in _beginnings(passage) if suffices(text)), passage.text)
    return titled(replace(passage, text=text))


def _beginnings(passage: Passage) -> Iterator[str]:
    """Yield the text of ``passage`` sentence by sentence from its start; no sentence ends within its title (U.S. …)."""
    titles = [match.span() for match in re.finditer(re.escape(passage.title.strip('"')), passage.text)]
    for match in _SENTENCE_END.finditer(passage.text):
        if not any(start < match.end() < end for start, end in titles):
            yield passage.text[: match.end()]


def _noun(fact: str) -> str:
    return _NOUNS.get(fact, f"the {fact}")


def statement(fact: str, phrase: str, value: str) -> str:
    """Say what a fact of an entity is: ``the capital of Mali is Bamako``. The value comes last."""
    return _STATEMENTS.get(fact, f"{_noun(fact)} of {{x}} is {{value}}").format(x=phrase, value=value)


def _plan(opening: str, chain: Sequence[str], phrase: str) -> str:
    """Say what is asked, and where that takes more than one step, what comes first."""
    asked = " of ".join(_noun(fact) for fact in reversed(chain))
    first = f" First: {_noun(chain[0])} of {phrase}." if len(chain) > 1 else ""
    return f"{opening} {asked} of {phrase}.{first}"
