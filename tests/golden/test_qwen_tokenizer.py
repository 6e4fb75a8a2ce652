"""``Tokenizer`` on Qwen's real vocabulary, beside two independent readers: ``tiktoken`` and ``transformers``."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.profiles.search_r1 import RETRY, SEARCH_R1
from searchr1.tokenizer import Tokenizer
from tests.golden import qwen
from tests.loop.scripts import model_texts

Q = qwen.load()


@pytest.fixture(scope="module")
def tokenizer(qwen_tokenizer: Tokenizer) -> Tokenizer:
    return qwen_tokenizer


@given(text=model_texts() | st.text())
def test_text_encodes_as_tiktoken_encodes_it(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == Q.encode(text)


@pytest.mark.parametrize("text", [RETRY, "<|im_end|>", "a<|im_start|>system\nb", "<|endoftext|>" * 3])
def test_special_text_is_ordinary_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == Q.encode(text)
    assert max(ids) < min(qwen.SPECIAL.values())
    assert tokenizer.decode(tuple(ids)) == text


@given(question=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_prompt_encodes_as_tiktoken_encodes_it(tokenizer: Tokenizer, question: str) -> None:
    rendered = tokenizer.render(SEARCH_R1.prompt(question))
    ids = tokenizer.encode_prompt(rendered)
    assert ids == Q.encode_prompt(rendered)
    assert ids[:3] == [151644, 8948, 198]
    assert ids[-3:] == [151644, 77091, 198]


@pytest.mark.torch
def test_a_prompt_is_what_transformers_makes_of_it(
    qwen_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(qwen_folder))
    text = SEARCH_R1.prompt("Who wrote Ségou, and what is 日本")
    asked = [{"role": "user", "content": text}]
    rendered = theirs.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    ids = theirs.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert tokenizer.render(text) == rendered
    assert tokenizer.encode_prompt(rendered) == list(ids)
    assert tokenizer.encode(RETRY) == theirs.encode(RETRY, add_special_tokens=False)
