"""The Atlas passages: one for each city, a handful for each country, worded differently from entity to entity.

A line is ``{"id", "contents"}`` as upstream's corpora have it, the title in double quotes on the contents' first line.
Passages have about 15 to 45 words. The wording is drawn by hashing the entity, so a corpus is the same in every run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from searchr1.atlas import templates
from searchr1.atlas.world import City, Country, World, stable_hash, stable_unit
from searchr1.files import write_json_lines

CorpusName = Literal["all", "train"]
_MAX_LISTED_NEIGHBOURS = 7


@dataclass(frozen=True, slots=True)
class Entry:
    """A passage of a corpus."""

    id: str
    title: str
    """Title without its quotes."""
    text: str

    def to_row(self) -> dict[str, str]:
        """Return the entry as one JSON record."""
        return {"id": self.id, "contents": f'"{self.title}"\n{self.text}'}


def write_corpus(world: World, name: CorpusName, path: Path) -> int:
    """Write a corpus to ``path`` and return its number of passages.

    ``all`` is everything, and what a demo serves. ``train`` is for demonstrations: it has train entities only, and no
    held-out entity's name occurs in it, not even as a neighbour or as part of another name.
    """
    return write_json_lines(path, (entry.to_row() for entry in entries(world, name)))


def entries(world: World, name: CorpusName) -> Iterator[Entry]:
    """Yield the passages of a corpus, countries first."""
    for entry in _all_entries(world, train_only=name == "train"):
        if name == "all" or not world.held_out.occurs_in(f"{entry.title}\n{entry.text}"):
            yield entry


def neighbours(world: World, country: Country, *, train_only: bool) -> tuple[Country, ...]:
    """Return the neighbours of ``country``, without those outside the train split if ``train_only``."""
    codes = (code for code in country.neighbours if not train_only or world.splits[code] == "train")
    return tuple(world.countries[code] for code in codes)


def _all_entries(world: World, *, train_only: bool) -> Iterator[Entry]:
    for country in world.countries.values():
        if not train_only or world.splits[country.code] == "train":
            yield from _country_entries(world, country, train_only=train_only)
    for city in world.cities:
        if not train_only or world.splits[city.country] == "train":
            yield _city_entry(world, city)


def _pick(options: Sequence[str], *key: object) -> str:
    return options[stable_hash(*key) % len(options)]


def _sibling(world: World, code: str, exclude: str, *key: object) -> str | None:
    """Name another city of the country: a true but useless fact, as real passages are full of them."""
    others = [city.name for city in world.cities_of.get(code, ())[:30] if city.name != exclude]
    return _pick(others, *key) if others else None


def _city_entry(world: World, city: City) -> Entry:
    country = world.countries[city.country]
    is_capital = city.name == country.capital
    key = ("city", city.id)
    slots = {"city": city.name, "country": country.phrase}
    sentences = [_pick(templates.CITY_COUNTRY, *key).format(**slots)]
    if is_capital:
        sentences.append(_pick(templates.CITY_CAPITAL, *key, "capital").format(**slots))
    extras = [
        _pick(templates.CITY_POPULATION, *key, "population").format(population=f"{city.population:,}"),
        _pick(templates.CITY_TIMEZONE, *key, "timezone").format(timezone=city.timezone),
    ]
    sibling = _sibling(world, city.country, city.name, *key, "sibling")
    if sibling is not None and not is_capital and stable_unit(*key, "with sibling") < 0.4:
        extras.append(_pick(templates.CITY_SIBLINGS, *key, "siblings").format(other=sibling))
    extras.sort(key=lambda text: stable_hash(*key, text))
    kept = len(extras) if is_capital else 1 + stable_hash(*key, "kept") % 2
    return Entry(f"city-{city.id}", city.name, " ".join(sentences + extras[:kept]))


def _country_entries(world: World, country: Country, *, train_only: bool) -> Iterator[Entry]:
    topics = {
        "geography": _geography(world, country, train_only=train_only),
        "capital": _capital(world, country),
        "economy": _economy(country),
        "languages": _language(country),
        "people": _people(country),
    }
    for topic, text in topics.items():
        if text:
            yield Entry(f"country-{country.code}-{topic}", country.name, text)


def _slots(country: Country) -> dict[str, str]:
    phrase = country.phrase
    return {"country": phrase, "Country": phrase[0].upper() + phrase[1:]}


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does: ``A, B and C``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _geography(world: World, country: Country, *, train_only: bool) -> str:
    key = (country.code, "geography")
    sentences = [_pick(templates.GEOGRAPHY, *key).format(continent=country.continent, **_slots(country))]
    names = [neighbour.phrase for neighbour in neighbours(world, country, train_only=train_only)]
    if names:
        names.sort(key=lambda name: stable_hash(*key, name))
        text = listed(names[:_MAX_LISTED_NEIGHBOURS])
        options = templates.ONE_NEIGHBOUR if len(names) == 1 else templates.NEIGHBOURS
        sentences.append(_pick(options, *key, "borders").format(neighbours=text))
    elif not country.neighbours:
        sentences.append(_pick(templates.NO_NEIGHBOURS, *key, "borders"))
    if country.area_km2 and stable_unit(*key, "with area") < 0.6:
        sentences.append(_pick(templates.AREA, *key, "area").format(area=f"{country.area_km2:,}"))
    return " ".join(sentences)


def _capital(world: World, country: Country) -> str:
    key = (country.code, "capital")
    sentences = [_pick(templates.CAPITAL, *key).format(capital=country.capital, **_slots(country))]
    sibling = _sibling(world, country.code, country.capital, *key)
    if sibling is not None:
        sentences.append(_pick(templates.CAPITAL_SIBLINGS, *key, "siblings").format(other=sibling))
    sentences.append(_pick(templates.CAPITAL_EXTRA, *key, "extra"))
    return " ".join(sentences)


def _economy(country: Country) -> str:
    if not country.currency:
        return ""
    key = (country.code, "economy")
    first = _pick(templates.CURRENCY, *key)
    second = _pick(templates.ECONOMY_EXTRA, *key, "extra").format(tld=country.tld)
    return f"{first.format(currency=country.currency, code=country.currency_code, **_slots(country))} {second}"


def _language(country: Country) -> str:
    if not country.languages:
        return ""
    key = (country.code, "languages")
    options = templates.LANGUAGE_ONE if len(country.languages) == 1 else templates.LANGUAGE_MANY
    first = _pick(options, *key).format(language=listed(country.languages), **_slots(country))
    return f"{first} {_pick(templates.LANGUAGE_EXTRA, *key, 'extra')}"


def _people(country: Country) -> str:
    if not country.population:
        return ""
    key = (country.code, "people")
    first = _pick(templates.PEOPLE, *key).format(population=f"{country.population:,}", **_slots(country))
    return f"{first} {_pick(templates.PEOPLE_EXTRA, *key, 'extra')}"
