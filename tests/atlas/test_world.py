import pytest

from searchr1.atlas.world import LARGE_COUNTRY_CITIES, SPLITS, NameSet, World, fold, stable_hash, words


def test_mali_reads_as_the_sources_have_it(world: World) -> None:
    mali = world.countries["ML"]
    assert (mali.name, mali.capital, mali.continent) == ("Mali", "Bamako", "Africa")
    assert (mali.currency, mali.currency_code) == ("West African CFA franc", "XOF")
    assert mali.languages == ("French", "Bambara")
    assert world.city_named["Timbuktu"].country == "ML"


def test_the_demo_question_is_about_a_held_out_country(world: World) -> None:
    assert world.splits["ML"] == "test"
    assert world.held_out.occurs_in("a caravan to Timbuktu")


def test_every_country_is_in_one_split_of_about_the_intended_size(world: World) -> None:
    sizes = {split: len(world.countries_in(split)) for split in SPLITS}
    total = sum(sizes.values())
    assert total == len(world.countries) > 230
    assert 0.6 < sizes["train"] / total < 0.8
    assert 0.05 < sizes["validation"] / total < 0.15
    assert 0.15 < sizes["test"] / total < 0.25


def test_countries_with_very_many_cities_are_train(world: World) -> None:
    large = [code for code, cities in world.cities_of.items() if len(cities) > LARGE_COUNTRY_CITIES]
    assert "IN" in large
    assert {world.splits[code] for code in large} == {"train"}


def test_city_names_are_unique_and_no_country_has_one(world: World) -> None:
    names = [city.name for city in world.cities]
    assert len(names) > 20_000
    assert len({fold(name) for name in names}) == len(names)
    countries = {fold(country.name) for country in world.countries.values()}
    assert not countries & {fold(name) for name in names}


def test_a_city_far_larger_than_its_namesakes_keeps_the_name(world: World) -> None:
    assert world.city_named["Paris"].country == "FR"
    assert "Springfield" not in world.city_named


def test_a_capital_is_spelled_as_its_city_is(world: World) -> None:
    brazil = world.countries["BR"]
    assert brazil.capital == "Brasília"
    city = world.capital_city(brazil)
    assert city is not None
    assert city.timezone == "America/Sao_Paulo"


@pytest.mark.parametrize(
    ("code", "phrase"),
    [
        ("NL", "the Netherlands"),
        ("ML", "Mali"),
        ("CD", "the Democratic Republic of the Congo"),
        ("US", "the United States"),
        ("GS", "South Georgia and the South Sandwich Islands"),
        ("CZ", "Czechia"),
    ],
)
def test_country_names_read_well_in_a_sentence(world: World, code: str, phrase: str) -> None:
    assert world.countries[code].phrase == phrase


def test_names_are_found_as_whole_word_sequences_only() -> None:
    names = NameSet(["Mali", "San Juan", "Port-au-Prince"])
    assert list(names.find("Somali and Malian")) == []
    assert list(names.find("mali")) == []
    assert list(names.find("From San Juan, Mali (Africa/Port_au_Prince)")) == [
        "San Juan",
        "Mali",
        "Port au Prince",
    ]
    assert list(names.find("Port au-Prince")) == ["Port au Prince"]


def test_words_split_at_punctuation_and_underscores() -> None:
    assert words("America/New_York, N'Djamena") == ("America", "New", "York", "N", "Djamena")


def test_hashes_are_the_same_in_every_run() -> None:
    assert stable_hash("atlas", 1) == stable_hash("atlas", "1") == 15959321115881384670
    assert stable_hash("atlas", 1) != stable_hash("atlas", 2)
