"""Special tokens never enter as ids: neither from passages nor from what the model wrote, in either mode."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from searchr1.loop.machine import Rollout
from searchr1.loop.neutralized import neutralized
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits, Passage
from searchr1.retrieval.text import clean_text
from searchr1.tokenizer import Tokenizer
from tests.golden import qwen
from tests.hostile.cases import CASES
from tests.loop.scripts import model_texts

SPECIAL = tuple(qwen.SPECIAL)
PROFILES = (SEARCH_R1, neutralized(SEARCH_R1))


@pytest.fixture(scope="module")
def tokenizer(qwen_tokenizer: Tokenizer) -> Tokenizer:
    return qwen_tokenizer


def special_ids(qwen_folder: Path) -> set[int]:
    raw = RawTokenizer.from_file(str(qwen_folder / "tokenizer.json"))
    return {i for i, token in raw.get_added_tokens_decoder().items() if token.special}


def test_the_vocabulary_has_special_tokens(qwen_folder: Path, tokenizer: Tokenizer) -> None:
    assert special_ids(qwen_folder) >= set(qwen.SPECIAL.values())
    assert tokenizer.encode_prompt("a<|im_end|>b")[1] == qwen.SPECIAL["<|im_end|>"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: str(profile.name))
def test_no_case_brings_one_in(qwen_folder: Path, tokenizer: Tokenizer, profile: Profile) -> None:
    special = special_ids(qwen_folder)
    for case in CASES:
        found = [Passage("1", clean_text(p.title[:5000]), clean_text(p.text[:5000])) for p in case.passages]
        assert not special.intersection(tokenizer.encode(profile.observation(found))), case.name


@given(pieces=st.lists(st.sampled_from(SPECIAL) | st.sampled_from(["<|", "|>", " ", "\n", "a", "im_end"]) | st.text()))
def test_no_text_encodes_to_one(tokenizer: Tokenizer, pieces: list[str]) -> None:
    ids = tokenizer.encode(clean_text("".join(pieces)))
    assert not set(qwen.SPECIAL.values()).intersection(ids)


@given(token=st.sampled_from(SPECIAL), text=model_texts(), profile=st.sampled_from(PROFILES))
def test_a_rollout_holds_none_after_its_prompt(tokenizer: Tokenizer, token: str, text: str, profile: Profile) -> None:
    prompt = "<|im_start|>user\nq<|im_end|>\n"
    ids = tokenizer.encode_prompt(prompt)
    limits = Limits(max_turns=2)
    rollout = Rollout(prompt=prompt, prompt_ids=ids, encode=tokenizer.encode, limits=limits, profile=profile)
    for written in (f"{token}{clean_text(text)}", f"<search> {token} </search>", f"<answer> {token} </answer>"):
        if rollout.status is not None:
            break
        rollout.receive_text(written, (1,))
        rollout.end_completion("stop")
        if rollout.status is None and not hasattr(rollout.action, "prompt_ids"):
            rollout.receive_passages([Passage("1", token, f"{token} x {token}")])
    special = set(qwen.SPECIAL.values())
    assert special.intersection(ids)
    assert not special.intersection(rollout.ids[len(ids) :])
