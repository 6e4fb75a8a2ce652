"""A copy of Atlas's train split in which every name and number is another: what is asked of it can only be read.

A small policy learns the train split's facts by heart, and then neither its rewards nor its losses tell whether it
reads. The new names are confusable on purpose, as real ones are: capitals, currencies, time zones and neighbours called
after their country (Algiers, San Salvador, Guinea-Bissau), names that repeat themselves (Pago Pago), numbers too.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from searchr1.atlas.names import MAX_CUT_LETTERS, SUFFIXES, UNITS, derived_name, doubled_name, made_up_name
from searchr1.atlas.world import City, Country, World

_REAL_NAME = 0.75
"""Share of places that take a real city's name; the others' is made up, or a variant of another place's."""
_VARIANT = 0.4
_DOUBLED = 0.1
"""Shares of the others' names."""
_KEPT_LANGUAGE, _KEPT_CURRENCY = 0.3, 0.15
"""Languages and currencies that keep their name, as countries share these."""
_AFTER_COUNTRY = 0.6
"""Share of the other languages and currencies that are called after a country that has them."""
_CAPITAL_AFTER_COUNTRY = 0.25
_COUNTRY_AFTER_NEIGHBOUR = 0.1
_COMPOUND_COUNTRY = 0.2
_MORE_ARTICLES = 0.08
_TIMEZONE_KEPT = 0.4
_REPEATING_NUMBER = 0.15
_BEFORE = ("Nova", "San", "Saint", "New", "East", "West", "Port", "Old", "El", "Upper")
_BEFORE_COUNTRY = ("El", "New", "Saint", "South", "North", "East", "French", "Equatorial", "Upper", "British")
_GENERIC_ENDINGS = ("Islands", "Republic", "Emirates", "States", "Kingdom", "Territories")
"""Last words of country names that stay."""


def renamed_world(world: World, seed: int, share: float = 1.0) -> World:
    """Return the train split of ``world`` with new names, populations, time zones and continents.

    With a ``share`` below 1 only so many countries, drawn at random, are renamed, with their cities and with the
    languages and currencies that no other country has: strange countries among known ones, as held-out ones are.

    Borders, codes, areas and what kind of a fact there is of whom stay. No new name holds the name of a held-out entity
    of ``world``, and the same arguments give the same world.
    """
    return _Renaming(world, seed, share).world()


@dataclass(frozen=True, slots=True)
class _CountryNames:
    name: str
    capital: str


class _Renaming:
    def __init__(self, world: World, seed: int, share: float) -> None:
        self._old = world
        self._rng = random.Random(f"renamed-{seed}")
        everything = world.countries_in("train")
        self._countries = tuple(c for c in everything if share >= 1 or self._rng.random() < share)
        codes = {country.code for country in self._countries}
        self._known = tuple(country for country in everything if country.code not in codes)
        self._cities = tuple(city for city in world.cities_in("train") if city.country in codes)
        self._known_cities = tuple(city for city in world.cities_in("train") if city.country not in codes)
        self._continents = sorted({country.continent for country in self._countries})
        self._taken = {name for country in self._known for name in (country.name, country.capital)}
        self._taken |= {city.name for city in self._known_cities}
        self._latest: deque[str] = deque(maxlen=200)
        real = [city.name for city in self._cities if not world.held_out.occurs_in(city.name)]
        self._rng.shuffle(real)
        self._real: Iterator[str] = iter(real)
        self._timezones: dict[tuple[str, str], str] = {}

    def world(self) -> World:
        names = {country.code: _CountryNames(country.name, country.capital) for country in self._known}
        for country in self._countries:
            names[country.code] = self._country_names(country, names)
        languages = self._shared_names(lambda c: c.languages, _KEPT_LANGUAGE, names, self._language)
        currencies = self._shared_names(lambda c: (c.currency,), _KEPT_CURRENCY, names, self._currency)
        countries = {
            country.code: replace(
                country,
                name=names[country.code].name,
                aliases=(),
                capital=names[country.code].capital,
                continent=self._rng.choice(self._continents),
                languages=tuple(dict.fromkeys(languages[language] for language in country.languages)),
                currency=currencies[country.currency],
                neighbours=tuple(code for code in country.neighbours if code in names),
                population=self._number(country.population),
                takes_article=country.takes_article or self._rng.random() < _MORE_ARTICLES,
            )
            for country in self._countries
        }
        countries |= {
            country.code: replace(country, neighbours=tuple(code for code in country.neighbours if code in names))
            for country in self._known
        }
        cities = [*self._known_cities, *(self._city(city, names) for city in self._cities)]
        return World(countries, tuple(sorted(cities, key=lambda city: city.id)))

    def _country_names(self, country: Country, named: Mapping[str, _CountryNames]) -> _CountryNames:
        name = self._country(country, named)
        if self._rng.random() >= _CAPITAL_AFTER_COUNTRY:
            return _CountryNames(name, self._place())
        last = name.rsplit(" ", 1)[-1]
        after = self._rng.choice((f"{name} City", f"San {last}", self._derived(name), self._derived(name)))
        return _CountryNames(name, self._first_free(after))

    def _country(self, country: Country, named: Mapping[str, _CountryNames]) -> str:
        last = country.name.rsplit(" ", 1)[-1]
        if last in _GENERIC_ENDINGS:
            return self._first_free(f"{made_up_name(self._rng)} {last}")
        neighbours = [named[code].name for code in country.neighbours if code in named]
        if neighbours and self._rng.random() < _COUNTRY_AFTER_NEIGHBOUR:
            other = self._rng.choice(neighbours)
            return self._first_free(self._rng.choice((f"{other}-{made_up_name(self._rng)}", self._derived(other))))
        name = self._place()
        if self._rng.random() < _COMPOUND_COUNTRY:
            return self._first_free(f"{self._rng.choice(_BEFORE_COUNTRY)} {name}")
        return name

    def _city(self, city: City, names: Mapping[str, _CountryNames]) -> City:
        is_capital = city.name == self._old.countries[city.country].capital
        capital = names[city.country].capital
        return replace(
            city,
            name=capital if is_capital else self._place(),
            population=self._number(city.population),
            timezone=self._timezone(city, names[city.country]),
        )

    def _timezone(self, city: City, names: _CountryNames) -> str:
        """Return one time zone for all cities of a country that shared one: the old one, or one named after a place."""
        key = (city.country, city.timezone)
        if key not in self._timezones:
            after = self._rng.choice((names.capital, names.capital, names.name, made_up_name(self._rng)))
            region = city.timezone.split("/", 1)[0]
            kept = self._rng.random() < _TIMEZONE_KEPT
            self._timezones[key] = city.timezone if kept else f"{region}/{after.replace(' ', '_')}"
        return self._timezones[key]

    def _number(self, number: int) -> int:
        """Return another number of as many digits; some nearly repeat three of their digits, as 7,737,731 does."""
        digits = len(str(number))
        if not number:
            return 0
        new = self._rng.randrange(10 ** (digits - 1), 10**digits)
        if digits > 6 and self._rng.random() < _REPEATING_NUMBER:
            text = str(new)
            return int(text[:-3] + text[-6:-4] + str(self._rng.randrange(10)))
        return new

    def _shared_names(
        self,
        of: Callable[[Country], tuple[str, ...]],
        kept: float,
        names: Mapping[str, _CountryNames],
        new_name: Callable[[str], str],
    ) -> dict[str, str]:
        """Return new names by old ones for what several countries have in common; an empty name stays empty."""
        renamed = {"": "", **{name: name for country in self._known for name in of(country)}}
        for country in self._countries:
            for old in of(country):
                if old not in renamed:
                    stays = self._rng.random() < kept
                    renamed[old] = old if stays else new_name(names[country.code].name)
        return renamed

    def _language(self, country: str) -> str:
        return self._derived(country) if self._rng.random() < _AFTER_COUNTRY else made_up_name(self._rng)

    def _currency(self, country: str) -> str:
        draw = self._rng.random()
        own = made_up_name(self._rng).lower()
        if draw < 0.15:
            return own
        unit = self._rng.choice((self._rng.choice(UNITS), own, country[-4:].strip(" -").lower()))
        if draw > 1 - _AFTER_COUNTRY:
            return f"{self._rng.choice((country, self._derived(country), self._derived(country)))} {unit}"
        return f"{made_up_name(self._rng)} {unit}"

    def _derived(self, country: str) -> str:
        return derived_name(country, self._rng.randint(0, MAX_CUT_LETTERS), self._rng.choice(SUFFIXES))

    def _place(self) -> str:
        if self._rng.random() < _REAL_NAME:
            for name in self._real:
                if self._is_free(name):
                    return name
        return self._first_free(self._other_place())

    def _other_place(self) -> str:
        draw = self._rng.random()
        if draw < _VARIANT and self._latest:
            other = self._rng.choice(self._latest)
            return f"{self._rng.choice(_BEFORE)} {other}"
        return doubled_name(self._rng) if draw < _VARIANT + _DOUBLED else made_up_name(self._rng)

    def _first_free(self, wanted: str) -> str:
        """Return ``wanted``, or a made-up name where something has it already."""
        while not self._is_free(wanted):
            wanted = made_up_name(self._rng)
        return wanted

    def _is_free(self, name: str) -> bool:
        """Return whether nothing has ``name`` yet; if so it is taken from now on."""
        if name in self._taken or self._old.held_out.occurs_in(name):
            return False
        self._taken.add(name)
        self._latest.append(name)
        return True
