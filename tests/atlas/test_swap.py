import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from searchr1.atlas.names import made_up_name
from searchr1.atlas.questions import generate
from searchr1.atlas.records import Demonstration
from searchr1.atlas.swap import KnownNames, NamePool, swap_bystanders, swap_entities
from searchr1.atlas.teacher import Teacher
from searchr1.atlas.world import World
from searchr1.loop.types import Passage
from tests.atlas.conftest import demonstrate


@pytest.fixture(scope="module")
def pool(world: World) -> NamePool:
    return NamePool.of(world)


@pytest.fixture(scope="module")
def demonstrations(world: World, oracle: Callable[[str], Sequence[Passage]]) -> list[Demonstration]:
    teacher = Teacher(world)
    found = (demonstrate(teacher, question, oracle) for question in generate(world, "test", 200, 0))
    return [demonstration for demonstration in found if demonstration is not None]


def test_a_swap_depends_on_its_arguments_alone(demonstrations: list[Demonstration], pool: NamePool) -> None:
    [first, *_] = demonstrations
    assert swap_entities(first, random.Random(1), pool) == swap_entities(first, random.Random(1), pool)
    assert swap_entities(first, random.Random(1), pool) != swap_entities(first, random.Random(2), pool)


def test_names_change_everywhere_and_nothing_else_does(demonstrations: list[Demonstration], pool: NamePool) -> None:
    for index, old in enumerate(demonstrations):
        new = swap_entities(old, random.Random(index), pool)
        assert len(new.entities) == len(old.entities)
        kept = set(new.entities) & set(old.entities)
        assert {old.entities[name] for name in kept} <= {"language", "currency"}
        back = dict(zip(new.entities, old.entities, strict=True))
        assert [renamed(text, back) for text in new.texts()] == list(old.texts())


def renamed(text: str, names: Mapping[str, str]) -> str:
    pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.sub(pattern, lambda match: names[match.group()], text)


def test_the_answer_is_still_right_and_still_in_a_passage(demonstrations: list[Demonstration], pool: NamePool) -> None:
    for index, old in enumerate(demonstrations):
        new = swap_entities(old, random.Random(index), pool)
        answer = re.findall(r"<answer> (.*) </answer>", new.turns[-1].text)[0]
        assert answer.removeprefix("the ") in new.golden_answers
        assert any(answer in passage.text for passage in new.turns[-2].passages)
        for turn in new.turns:
            assert re.fullmatch(r"<think> .* </think>\n<(search|answer)> .* </\1>", turn.text)
            assert turn.query is None or f"<search> {turn.query} </search>" in turn.text


def test_the_pool_names_no_held_out_entity(world: World, pool: NamePool) -> None:
    assert set(pool.names) == {"country", "city", "currency", "language"}
    assert not any(world.held_out.occurs_in(name) for names in pool.names.values() for name in names)


def test_made_up_names_are_capitalized_words() -> None:
    rng = random.Random(0)
    names = {made_up_name(rng) for _ in range(200)}
    assert len(names) > 190
    assert all(re.fullmatch(r"[^\W\d_]+(?:[ -][^\W\d_]+)?", name) and name[0].isupper() for name in names)


@pytest.fixture(scope="module")
def known(world: World) -> KnownNames:
    return KnownNames.of(world)


def test_names_are_found_as_whole_words_and_the_longest_first(known: KnownNames) -> None:
    names = KnownNames({"Port Sudan": "city", "Sudan": "country", "St. John's": "city", "Eilat": "city"}, 3)
    assert names.in_text("Port Sudan lies in Sudan, not in St. John's.") == {"Port Sudan", "Sudan", "St. John's"}
    assert not names.in_text("Asia/Eilat, Eilat-Nord and Sudanese")
    assert not {"Doc", "The", "Another", "Its"} & set(known.types)


def _renamed_throughout(
    demonstrations: list[Demonstration], pool: NamePool, known: KnownNames
) -> Iterator[tuple[Demonstration, Demonstration]]:
    """Each with its entities renamed, and then with its bystanders renamed too."""
    for index, item in enumerate(demonstrations):
        swapped = swap_entities(item, random.Random(index), pool)
        yield swapped, swap_bystanders(swapped, random.Random(index), pool, known)


def _after_quote(text: str) -> str:
    return text.rpartition(" So ")[2]


def test_a_quote_stays_what_its_passage_says(
    demonstrations: list[Demonstration], pool: NamePool, known: KnownNames
) -> None:
    num_quotes = 0
    for _, new in _renamed_throughout(demonstrations, pool, known):
        for searched, stated in zip(new.turns, new.turns[1:], strict=False):
            for number, quote in re.findall(r"<think> Doc (\d)(\(Title: .+\.) So ", stated.text):
                passage = searched.passages[int(number) - 1]
                assert f"(Title: {passage.title}) {passage.text}".startswith(quote)
                num_quotes += 1
    assert num_quotes >= len(demonstrations)


def test_bystanders_change_and_what_is_reasoned_about_stays(
    demonstrations: list[Demonstration], pool: NamePool, known: KnownNames
) -> None:
    num_changed = 0
    for old, new in _renamed_throughout(demonstrations, pool, known):
        assert [_after_quote(turn.text) for turn in new.turns] == [_after_quote(turn.text) for turn in old.turns]
        assert (new.question, new.golden_answers, new.entities) == (old.question, old.golden_answers, old.entities)
        for before, after in zip(old.turns, new.turns, strict=True):
            for one, other in zip(before.passages, after.passages, strict=True):
                gone = known.in_text(one.text) - set(old.entities)
                stayed = gone & known.in_text(other.text)
                assert {known.types[name] for name in stayed} <= {"language", "currency"}
                num_changed += one != other
    assert num_changed > 20


def test_some_languages_stay_and_no_country_does(demonstrations: list[Demonstration], pool: NamePool) -> None:
    stayed, all_languages = 0, 0
    for index, old in enumerate(demonstrations):
        new = swap_entities(old, random.Random(index), pool)
        languages = {name for name, kind in old.entities.items() if kind == "language"}
        stayed, all_languages = stayed + len(languages & set(new.entities)), all_languages + len(languages)
    assert 0.2 < stayed / all_languages < 0.8
