import json
from collections.abc import Sequence
from pathlib import Path

from searchr1.atlas.corpus import Entry, entries, listed, write_corpus
from searchr1.atlas.world import World, words
from searchr1.loop.types import Passage


def held_out_sequences(world: World) -> set[tuple[str, ...]]:
    names: set[str] = set()
    for code, country in world.countries.items():
        if world.splits[code] != "train":
            names |= {country.name, country.capital, *country.aliases}
            names |= {city.name for city in world.cities_of.get(code, ())}
    return {words(name) for name in names}


def sequences_in(text: str, longest: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {found[i : i + n] for n in range(1, longest + 1) for i in range(len(found) - n + 1)}


def test_no_held_out_name_occurs_in_the_train_corpus(world: World, train_entries: Sequence[Entry]) -> None:
    names = held_out_sequences(world)
    longest = max(map(len, names))
    assert len(train_entries) > 20_000
    for entry in train_entries:
        assert not names & sequences_in(f"{entry.title}\n{entry.text}", longest), entry


def test_the_whole_corpus_has_every_city_and_the_facts_of_every_country(
    world: World, all_entries: Sequence[Entry]
) -> None:
    texts: dict[str, str] = {entry.id: entry.text for entry in all_entries}
    assert len(texts) == len(all_entries)
    for city in world.cities:
        assert world.countries[city.country].phrase in texts[f"city-{city.id}"]
    for code, country in world.countries.items():
        assert country.continent in texts[f"country-{code}-geography"]
        assert country.capital in texts[f"country-{code}-capital"]
        if country.currency:
            assert country.currency in texts[f"country-{code}-economy"]
        if country.languages:
            assert listed(country.languages) in texts[f"country-{code}-languages"]


def test_passages_are_short(all_entries: Sequence[Entry]) -> None:
    lengths = [len(entry.text.split()) for entry in all_entries]
    assert max(lengths) <= 60
    assert 8 <= sum(lengths) / len(lengths) <= 40


def test_wording_varies(all_entries: Sequence[Entry]) -> None:
    openings = {entry.text.split()[0] for entry in all_entries if entry.id.endswith("-economy")}
    assert len(openings) >= 5


def test_the_file_has_upstreams_form_and_is_the_same_in_every_run(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    count = write_corpus(world, "all", first)
    write_corpus(world, "all", second)
    assert first.read_bytes() == second.read_bytes()
    rows = [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    assert all(set(row) == {"id", "contents"} for row in rows)
    [mali] = [row for row in rows if row["id"] == "country-ML-economy"]
    passage = Passage.from_contents(mali["contents"])
    assert passage.title == '"Mali"'
    assert "West African CFA franc" in passage.text
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_only_the_whole_corpus_knows_held_out_neighbours(world: World) -> None:
    def geography(name: str) -> str:
        found = entries(world, "train" if name == "train" else "all")
        return next(entry.text for entry in found if entry.id == "country-NE-geography")

    assert "Mali" in words(geography("all"))
    assert "Mali" not in words(geography("train"))


def test_lists_read_as_sentences_do() -> None:
    assert listed(["A"]) == "A"
    assert listed(["A", "B"]) == "A and B"
    assert listed(["A", "B", "C"]) == "A, B and C"
