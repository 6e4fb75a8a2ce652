"""The renamed world: the train split's shape, none of its facts."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from searchr1.atlas.build import build_renamed
from searchr1.atlas.names import derived_name
from searchr1.atlas.questions import generate
from searchr1.atlas.renamed import renamed_world
from searchr1.atlas.world import World
from searchr1.evaluation.datasets import load_questions


@pytest.fixture(scope="module")
def renamed(world: World) -> World:
    return renamed_world(world, seed=3)


def test_it_has_the_countries_and_cities_of_the_train_split(world: World, renamed: World) -> None:
    assert set(renamed.countries) == {country.code for country in world.countries_in("train")}
    assert [(c.id, c.country) for c in renamed.cities] == [(c.id, c.country) for c in world.cities_in("train")]
    for country in renamed.countries.values():
        before = world.countries[country.code]
        assert country.neighbours == tuple(code for code in before.neighbours if code in renamed.countries)
        assert (country.area_km2, country.tld) == (before.area_km2, before.tld)
        assert bool(country.currency) == bool(before.currency)
        assert len(country.languages) <= len(before.languages)


def test_numbers_are_others_of_the_same_size(world: World, renamed: World) -> None:
    pairs = list(zip(world.cities_in("train"), renamed.cities, strict=True))
    assert all(len(str(old.population)) == len(str(new.population)) for old, new in pairs)
    assert sum(old.population == new.population for old, new in pairs) < len(pairs) / 100


def test_a_time_zone_is_that_of_all_who_shared_it(world: World, renamed: World) -> None:
    zones: dict[tuple[str, str], set[str]] = {}
    for old, new in zip(world.cities_in("train"), renamed.cities, strict=True):
        zones.setdefault((old.country, old.timezone), set()).add(new.timezone)
    assert all(len(after) == 1 for after in zones.values())
    assert 0.4 < sum(after != {zone} for (_, zone), after in zones.items()) / len(zones) < 0.8


def test_some_names_are_confusable(renamed: World) -> None:
    countries = renamed.countries.values()
    named_after = [c for c in countries if c.currency and c.name[:5] == c.currency[:5]]
    assert len(named_after) > 20
    assert sum(c.capital[:4] == c.name[:4] or c.capital.startswith("San ") for c in countries) > 15
    assert any(city.name == " ".join([city.name.split()[0]] * 2) for city in renamed.cities)


def test_countries_and_cities_have_other_names_and_names_of_their_own(world: World, renamed: World) -> None:
    names = [country.name for country in renamed.countries.values()] + [city.name for city in renamed.cities]
    assert Counter(names).most_common(1)[0][1] == 1
    assert all(country.name != world.countries[code].name for code, country in renamed.countries.items())
    assert all(country.capital != world.countries[code].capital for code, country in renamed.countries.items())
    same = sum(new.name == old.name for new, old in zip(renamed.cities, world.cities_in("train"), strict=True))
    assert same < 10


def test_a_capital_is_still_a_city_of_its_country(world: World, renamed: World) -> None:
    for country in world.countries_in("train"):
        capital = world.capital_city(country)
        if capital is not None:
            found = renamed.capital_city(renamed.countries[country.code])
            assert found is not None
            assert found.id == capital.id


def test_no_name_is_of_a_held_out_entity(world: World, renamed: World) -> None:
    for country in renamed.countries.values():
        assert not any(world.held_out.occurs_in(name) for name in (country.name, country.capital))
    assert not any(world.held_out.occurs_in(city.name) for city in renamed.cities)


def test_the_seed_decides(world: World, renamed: World) -> None:
    assert renamed_world(world, seed=3) == renamed
    assert renamed_world(world, seed=4) != renamed


def test_a_share_of_the_countries_can_be_renamed(world: World) -> None:
    mixed = renamed_world(world, seed=3, share=0.3)
    train = world.countries_in("train")
    strange = {country.code for country in train if mixed.countries[country.code].name != country.name}
    assert 0.2 < len(strange) / len(train) < 0.45
    names = [country.name for country in mixed.countries.values()] + [city.name for city in mixed.cities]
    assert Counter(names).most_common(1)[0][1] == 1
    for country in train:
        if country.code not in strange:
            kept = mixed.countries[country.code]
            assert kept == replace(country, neighbours=kept.neighbours)
    cities = list(zip(world.cities_in("train"), sorted(mixed.cities, key=lambda city: city.id), strict=True))
    assert all(new == old for old, new in cities if old.country not in strange)
    assert sum(new.name == old.name for old, new in cities if old.country in strange) < 10


@pytest.mark.slow
def test_questions_of_every_kind_are_asked_of_it(world: World, renamed: World) -> None:
    kinds = {question.kind for question in generate(world, "train", 2000, 0)}
    assert {question.kind for question in generate(renamed, "train", 2000, 0)} == kinds


@pytest.mark.slow
def test_its_files_are_questions_and_a_corpus(tmp_path: Path) -> None:
    written = build_renamed(tmp_path, num_questions=50, seed=3)
    questions = load_questions(str(tmp_path / "questions-train.jsonl"))
    assert len(questions) == written["questions-train.jsonl"] == 50
    lines = (tmp_path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == written["corpus.jsonl"] > 20_000
    titles = {json.loads(line)["contents"].split('"')[1] for line in lines}
    rows = map(json.loads, (tmp_path / "questions-train.jsonl").read_text(encoding="utf-8").splitlines())
    assert all(row["entities"][0].removeprefix("the ") in titles for row in rows)


def test_a_derived_name_begins_like_its_country() -> None:
    assert derived_name("Egypt", 0, "ian") == "Egyptian"
    assert derived_name("Chad", 4, "i") == "Chai"
    assert derived_name("Saint Lucia", 6, "ish") == "Saintish"
