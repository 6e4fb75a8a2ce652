"""What is put in, cut at its limit: whole characters, as many as there is room for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.machine import Rollout, cut_ids
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits, Passage

TEXT = "a é ಕ 🙂 b"


def encode(text: str) -> list[int]:
    """An id for each byte."""
    return list(text.encode())


def spell(ids: tuple[int, ...]) -> str:
    return bytes(ids).decode(errors="replace")


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")), most=st.integers(0, 60))
def test_the_longest_beginning_of_whole_characters_is_kept(text: str, most: int) -> None:
    begun = [text[:n] for n in range(len(text) + 1)]
    longest = max((part for part in begun if len(part.encode()) <= most), key=len)
    assert spell(cut_ids(encode(text), most, spell)) == longest


@given(text=st.text(st.sampled_from("aé🙂\ufffd")), most=st.integers(0, 60))
def test_no_cut_ends_as_half_a_character_would(text: str, most: int) -> None:
    kept = cut_ids(encode(text), most, spell)
    assert list(kept) == encode(text)[: len(kept)]
    assert not spell(kept).endswith("\ufffd")
    lost = spell(tuple(encode(text)[:most]))[len(spell(kept)) :]
    assert len(kept) == len(encode(text)[:most]) or "\ufffd" in lost


@given(before=st.text(st.sampled_from("aé🙂ಕ")), bad=st.integers(1, 40), cut=st.integers(0, 2))
def test_replacement_characters_take_little_with_them(before: str, bad: int, cut: int) -> None:
    ids = encode(before + "\ufffd" * bad)
    kept = cut_ids(ids, len(ids) - cut, spell)
    lost = len(encode(before)) - len(kept)
    assert lost <= 3 * bad + 6


def test_a_text_of_replacement_characters_takes_few_looks() -> None:
    looks = 0

    def counted(ids: tuple[int, ...]) -> str:
        nonlocal looks
        looks += 1
        return spell(ids)

    assert cut_ids(encode("\ufffd" * 5000), 15_000, counted) == ()
    assert looks < 60


def test_without_a_way_to_spell_ids_a_cut_is_where_the_limit_is() -> None:
    assert cut_ids(encode("🙂"), 2, None) == tuple(encode("🙂")[:2])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("most", range(30, 60))
def test_an_observation_is_cut_so_in_serving_and_in_training(most: int, training: bool) -> None:
    rollout = Rollout(
        prompt="?",
        prompt_ids=encode("?"),
        encode=encode,
        limits=Limits(max_observation_tokens=most),
        decode=spell if training else None,
        spell=spell,
    )
    rollout.receive_text("<search> a </search>", encode("<search> a </search>"))
    rollout.end_completion("stop")
    rollout.receive_passages([Passage("1", TEXT, TEXT)])
    observation = rollout.segments[-1]
    assert observation.text == SEARCH_R1.observation([Passage("1", TEXT, TEXT)])
    whole = encode(observation.text)[:most]
    assert list(observation.ids) == encode(spell(tuple(whole)).rstrip("\ufffd"))
    assert len(whole) - len(observation.ids) <= 3
