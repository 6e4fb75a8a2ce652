from pathlib import Path

import pytest
from transformers import AutoTokenizer

from searchr1.tokenizer import Tokenizer


def test_every_byte_and_odd_text_round_trips(tokenizer: Tokenizer) -> None:
    every_byte = "".join(chr(i) for i in range(256)) + "ǅ漢字\U0001f30d\u200d\ufffd"
    for text in (every_byte, *every_byte, " leading", "trailing \n\n", "12,345", "</search>", "a\r\nb"):
        assert tokenizer.decode(tuple(tokenizer.encode(text))) == text


def test_tags_are_ordinary_text_and_control_tokens_are_not(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("</search>")) > 1
    prompt = tokenizer.render("Hello?\n")
    assert prompt == "<|im_start|>user\nHello?\n<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode_prompt(prompt)[0] == 1
    assert len(tokenizer.encode("<|im_end|>")) > 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transformers_reads_the_folder_to_the_same_ids(checkpoint_tokenizer: Path, tokenizer: Tokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(checkpoint_tokenizer)
    prompt = theirs.apply_chat_template(
        [{"role": "user", "content": "Is 123 in Mali?\n"}], add_generation_prompt=True, tokenize=False
    )
    assert prompt == tokenizer.render("Is 123 in Mali?\n")
    assert theirs(prompt, add_special_tokens=False).input_ids == tokenizer.encode_prompt(prompt)
    assert theirs.eos_token == "<|im_end|>"
    assert theirs.pad_token == "<|endoftext|>"
