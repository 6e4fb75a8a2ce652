"""Questions about the Atlas world, of one, two and three hops, each with all its right answers.

A *kind* names the chain of facts that answers a question: ``city-country-currency`` starts from a city, goes to its
country and ends at the currency. Its hops are the number of facts, which is the number of searches needed.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from searchr1.atlas import templates
from searchr1.atlas.corpus import neighbours
from searchr1.atlas.world import City, Country, Split, World, fold, stable_hash, stable_unit
from searchr1.files import read_json_lines, write_json_lines

FACTS = ("capital", "continent", "currency", "language", "neighbour")
_SHARES: Mapping[str, float] = {
    "city-country": 0.08,
    **{f"country-{fact}": 0.044 for fact in FACTS},
    **{f"city-country-{fact}": 0.085 for fact in FACTS},
    **{f"capital-country-{fact}": 0.019 for fact in FACTS if fact != "capital"},
    "city-country-capital-timezone": 0.08,
    "city-country-capital-population": 0.08,
    "city-country-neighbour-capital": 0.04,
}
"""Share of each kind among the questions: about 30 % of one hop, 50 % of two and 20 % of three."""
KINDS = tuple(_SHARES)
_MAX_CAPITALS = 4
"""A country with more neighbours than this is not asked for a neighbour's capital: too many answers are right."""


@dataclass(frozen=True, slots=True)
class AtlasQuestion:
    """A question and every answer that counts as right."""

    id: str
    question: str
    golden_answers: tuple[str, ...]
    hops: int
    kind: str
    entities: tuple[str, ...]
    """The topic first, then the entities on the way to the answer."""


@dataclass(frozen=True, slots=True)
class _Topic:
    """The topic of a question: the phrase that stands in it, the country it leads to, and names on the way."""

    key: str
    phrase: str
    country: Country
    entities: tuple[str, ...]
    weight: float


def hops_of(kind: str) -> int:
    """Return the number of facts that a question of ``kind`` takes."""
    return kind.count("-")


def generate(world: World, split: Split, limit: int, seed: int) -> tuple[AtlasQuestion, ...]:
    """Return up to ``limit`` distinct questions about the entities of ``split``, mixed.

    The same arguments give the same questions. Kinds that run out of distinct questions leave their share to
    ``city-country-*``. In the train split neither a question nor an answer holds the name of a held-out entity.
    """
    if limit <= 0:
        return ()
    pools = {kind: _ranked(world, split, kind, seed, math.ceil(limit * share)) for kind, share in _SHARES.items()}
    chosen = [question for pool in pools.values() for question in pool]
    missing = limit - len(chosen)
    if missing > 0:
        chosen += _fill(world, split, seed, missing, {question.question for question in chosen}, pools)
    chosen.sort(key=lambda question: stable_hash(seed, "mix", question.id))
    return tuple(chosen[:limit])


def _fill(
    world: World, split: Split, seed: int, missing: int, taken: set[str], pools: Mapping[str, Sequence[AtlasQuestion]]
) -> list[AtlasQuestion]:
    """Draw more about cities until ``missing`` are found or the split has no more."""
    kinds = [kind for kind in KINDS if kind.startswith("city-country-")]
    extra: list[AtlasQuestion] = []
    for factor in (1, 2, 4, 8):
        counts = {kind: len(pools[kind]) + factor * math.ceil(missing / len(kinds)) for kind in kinds}
        more = [question for kind in kinds for question in _ranked(world, split, kind, seed, counts[kind])]
        extra = [question for question in more if question.question not in taken]
        if len(extra) >= missing:
            break
    return extra[:missing]


def _ranked(world: World, split: Split, kind: str, seed: int, count: int) -> list[AtlasQuestion]:
    """Draw ``count`` questions of a kind: topics by weighted sampling without replacement, then their phrasings."""
    drawn: dict[str, AtlasQuestion] = {}
    topics = _topics(world, split, kind)
    if not topics:
        return []
    rounds = _MAX_ROUNDS if len(topics) < count else 4
    pool = _draws(topics, kind, seed, rounds, count * 2)
    for topic, draw in pool:
        question = _question(world, split, kind, topic, f"{seed}-{draw}")
        if question is not None and question.question not in drawn:
            drawn[question.question] = question
            if len(drawn) == count:
                break
    return list(drawn.values())


_MAX_ROUNDS = 60
"""Phrasings tried for each topic where topics are few."""


def _draws(topics: Sequence[_Topic], kind: str, seed: int, rounds: int, count: int) -> list[tuple[_Topic, int]]:
    def arrival(topic: _Topic, draw: int) -> float:
        # An exponential race: the weights decide who tends to come first.
        return draw * _ROUND_DELAY - math.log(stable_unit(seed, kind, topic.key, draw)) / topic.weight

    candidates = ((arrival(topic, draw), topic.key, draw, topic) for topic in topics for draw in range(rounds))
    return [(topic, draw) for _, _, draw, topic in heapq.nsmallest(count, candidates, key=lambda c: c[:3])]


_ROUND_DELAY = 0.5


def _topics(world: World, split: Split, kind: str) -> list[_Topic]:
    countries = world.countries_in(split)
    start = kind.split("-", 1)[0]
    if start == "country":
        return [_Topic(c.code, c.phrase, c, (), 1.0) for c in countries]
    if start == "capital":
        distinct = [c for c in countries if c.capital not in (c.name, *c.aliases)]
        shared = {c.capital for c in distinct if sum(o.capital == c.capital for o in world.countries.values()) > 1}
        return [_Topic(c.code, c.capital, c, (c.phrase,), 1.0) for c in distinct if c.capital not in shared]
    topics = []
    for country in countries:
        cities = world.cities_of.get(country.code, ())
        weight = 1.0 / math.sqrt(max(1, len(cities)))
        topics += [_Topic(str(city.id), city.name, country, (country.phrase,), weight) for city in cities]
    return topics


def _question(world: World, split: Split, kind: str, topic: _Topic, draw: str) -> AtlasQuestion | None:
    start, *chain = kind.split("-")
    golds, through = answers(world, split, kind, topic.country)
    if not golds:
        return None
    key = (kind, topic.key, draw)
    asked = chain[0] if start == "country" or kind == "city-country" else "-".join(chain[1:])
    phrase = topic.phrase if start == "country" or kind == "city-country" else _description(start, topic.phrase, key)
    text = _pick(templates.ASK[asked], *key, "ask").format(topic=phrase)
    text = text[0].upper() + text[1:]
    entities = (topic.phrase, *topic.entities, *through)
    if split == "train" and any(world.held_out.occurs_in(part) for part in (text, *golds, *entities)):
        return None
    return AtlasQuestion(f"atlas-{split}-{stable_hash(text):016x}", text, golds, hops_of(kind), kind, entities)


def _description(start: str, name: str, key: tuple[object, ...]) -> str:
    options = templates.CAPITAL_DESCRIPTIONS if start == "capital" else templates.CITY_DESCRIPTIONS
    return _pick(options, *key, "description").format(city=name)


def _pick(options: Sequence[str], *key: object) -> str:
    return options[stable_hash(*key) % len(options)]


def answers(world: World, split: Split, kind: str, country: Country) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the golden answers to a question of ``kind`` that leads to ``country``, and the entities after it.

    Without an answer both are empty. Neighbours in the train split are train countries only, as its corpus says.
    """
    train_only = split == "train"
    last = kind.removeprefix("city-country").removeprefix("capital-country").removeprefix("country").lstrip("-")
    find: dict[str, Callable[[], tuple[tuple[str, ...], tuple[str, ...]]]] = {
        "": lambda: (_country_names(country, train_only), ()),
        "capital": lambda: (spellings(country.capital), ()),
        "continent": lambda: ((country.continent,), ()),
        "currency": lambda: (_currency_names(country), ()),
        "language": lambda: (country.languages, ()),
        "neighbour": lambda: (_neighbour_names(world, country, train_only), ()),
        "capital-timezone": lambda: _of_capital(world, country, lambda city: city.timezone),
        "capital-population": lambda: _of_capital(world, country, lambda city: f"{city.population:,}"),
        "neighbour-capital": lambda: _neighbour_capitals(world, country, train_only),
    }
    return find[last]()


def spellings(name: str) -> tuple[str, ...]:
    """Return a name as it is and without accents."""
    plain = "".join(c if c.isascii() else fold(c) if c.islower() else fold(c).upper() for c in name)
    return tuple(dict.fromkeys((name, plain)))


def _country_names(country: Country, train_only: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*spellings(country.name), *country.aliases)))


def _currency_names(country: Country) -> tuple[str, ...]:
    if not country.currency:
        return ()
    names = [country.currency]
    names += [country.currency.replace("US ", full) for full in ("United States ", "American ") if "US " in names[0]]
    return tuple(dict.fromkeys(name for full in (*names, country.currency_code) for name in spellings(full)))


def _neighbour_names(world: World, country: Country, train_only: bool) -> tuple[str, ...]:
    others = neighbours(world, country, train_only=train_only)
    return tuple(dict.fromkeys(name for other in others for name in _country_names(other, train_only)))


def _of_capital(world: World, country: Country, fact: Callable[[City], str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    city = world.capital_city(country)
    return ((fact(city),), (city.name,)) if city is not None else ((), ())


def _neighbour_capitals(world: World, country: Country, train_only: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    others = neighbours(world, country, train_only=train_only)
    if not others or len(others) > _MAX_CAPITALS:
        return (), ()
    return tuple(dict.fromkeys(name for other in others for name in spellings(other.capital))), ()


def write_questions(questions: Iterable[AtlasQuestion], path: Path) -> int:
    """Write ``questions`` to ``path`` as JSON lines, whole or not at all, and return their number."""
    return write_json_lines(path, map(asdict, questions))


def read_questions(path: Path) -> Iterator[AtlasQuestion]:
    """Yield the questions that ``write_questions`` wrote.

    Raises:
        DatasetError: the file can't be read, or a line is not a question.
    """
    return (question for _, question in read_json_lines(path, TypeAdapter(AtlasQuestion)))
