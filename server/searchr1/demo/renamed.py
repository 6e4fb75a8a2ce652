"""A copy of Atlas's train split in which every name is another: the same facts' shape, none of the known facts.

A small policy learns the train split's facts by heart, and then its rewards no longer tell whether it reads. In a
renamed world they do: an answer can only come from the passages, as for the held-out entities of the real one.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from searchr1.demo.names import MAX_CUT_LETTERS, SUFFIXES, UNITS, derived_name, made_up_name
from searchr1.demo.world import City, Country, World

_REAL_NAME = 0.8
"""Share of places that take a real city's name; the others' is made up."""
_KEPT_LANGUAGE, _KEPT_CURRENCY = 0.3, 0.2
"""Languages and currencies that keep their name, as countries share these."""
_DERIVED = 0.6
"""Share of the other languages and currencies that are called after a country that has them."""
_CAPITAL_AFTER_COUNTRY = 0.2
"""Share of countries whose capital is called after them, as Algiers is after Algeria."""
_GENERIC_ENDINGS = ("Islands", "Republic", "Emirates", "States", "Kingdom", "Territories")
"""Ends of country names that decide whether an article goes before them; they stay."""


def renamed_world(world: World, seed: int) -> World:
    """Return the train split of ``world`` with new names for countries, capitals, cities, languages and currencies.

    Populations, borders, continents, codes and time zones stay. No new name holds the name of a held-out entity of
    ``world``, and the same arguments give the same names.
    """
    return _Renaming(world, seed).world()


@dataclass(frozen=True, slots=True)
class _CountryNames:
    name: str
    capital: str


class _Renaming:
    def __init__(self, world: World, seed: int) -> None:
        self._old = world
        self._rng = random.Random(f"renamed-{seed}")
        self._countries = world.countries_in("train")
        self._cities = world.cities_in("train")
        self._taken: set[str] = set()
        real = [city.name for city in self._cities if not world.held_out.occurs_in(city.name)]
        self._rng.shuffle(real)
        self._real: Iterator[str] = iter(real)

    def world(self) -> World:
        names = {country.code: self._country_names(country) for country in self._countries}
        languages = self._shared_names(lambda c: c.languages, _KEPT_LANGUAGE, names, self._language)
        currencies = self._shared_names(lambda c: (c.currency,), _KEPT_CURRENCY, names, self._currency)
        countries = {
            country.code: replace(
                country,
                name=names[country.code].name,
                aliases=(),
                capital=names[country.code].capital,
                languages=tuple(dict.fromkeys(languages[language] for language in country.languages)),
                currency=currencies[country.currency],
                neighbours=tuple(code for code in country.neighbours if code in names),
            )
            for country in self._countries
        }
        return World(countries, tuple(self._city(city, names) for city in self._cities))

    def _country_names(self, country: Country) -> _CountryNames:
        last = country.name.rsplit(" ", 1)[-1]
        name = f"{self._new(made_up_name)} {last}" if last in _GENERIC_ENDINGS else self._place()
        if self._rng.random() >= _CAPITAL_AFTER_COUNTRY:
            return _CountryNames(name, self._place())
        after = f"{name} City" if self._rng.random() < 0.3 else self._derived(name)
        return _CountryNames(name, after if self._is_free(after) else self._place())

    def _city(self, city: City, names: Mapping[str, _CountryNames]) -> City:
        if city.name == self._old.countries[city.country].capital:
            return replace(city, name=names[city.country].capital)
        return replace(city, name=self._place())

    def _shared_names(
        self,
        of: Callable[[Country], tuple[str, ...]],
        kept: float,
        names: Mapping[str, _CountryNames],
        new_name: Callable[[str], str],
    ) -> dict[str, str]:
        """New names by old ones for what several countries have in common; an empty name stays empty."""
        renamed = {"": ""}
        for country in self._countries:
            for old in of(country):
                if old not in renamed:
                    stays = self._rng.random() < kept
                    renamed[old] = old if stays else new_name(names[country.code].name)
        return renamed

    def _language(self, country: str) -> str:
        return self._derived(country) if self._rng.random() < _DERIVED else self._new(made_up_name)

    def _currency(self, country: str) -> str:
        if self._rng.random() < 0.2:
            return self._new(made_up_name).lower()
        owner = self._derived(country) if self._rng.random() < _DERIVED else self._new(made_up_name)
        return f"{owner} {self._rng.choice(UNITS)}"

    def _derived(self, country: str) -> str:
        return derived_name(country, self._rng.randint(0, MAX_CUT_LETTERS), self._rng.choice(SUFFIXES))

    def _place(self) -> str:
        if self._rng.random() < _REAL_NAME:
            for name in self._real:
                if self._is_free(name):
                    return name
        return self._new(made_up_name)

    def _new(self, make: Callable[[random.Random], str]) -> str:
        while not self._is_free(name := make(self._rng)):
            pass
        return name

    def _is_free(self, name: str) -> bool:
        """Whether nothing has ``name`` yet; if so it is taken from now on."""
        if name in self._taken or self._old.held_out.occurs_in(name):
            return False
        self._taken.add(name)
        return True
