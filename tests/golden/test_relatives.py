"""The texts of Search-R1's relatives, byte for byte as their references write them.

``relatives.json`` was made once by the references' own code, at the commits that the profiles name, for the question
and the passages below. It changes only if a profile is found to be wrong; then the other texts were never trained on.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Passage
from searchr1.tokenizer import Tokenizer
from tests.golden import qwen

QUESTION = 'Who wrote {question}, "Ségou"?'
FOUND = (
    Passage("1", '"Ségou"', "Ségou is a novel\nby Maryse Condé."),
    Passage("2", '"Mali"', "Its capital is Bamako.", url="https://example.org/mali"),
)
GOLDEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("relatives.json").read_text("utf-8"))
STOPS = {
    "research": ("</search>", "</answer>"),
    "research-base": ("</search>", "</answer>"),
    "search-o1": ("<|end_search_query|>",),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("qwen")
    qwen.write_folder(folder)
    return Tokenizer.load(str(folder))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_prompt(name: str) -> None:
    assert profile_named(name).messages(QUESTION) == GOLDEN[name]["messages"]
    assert profile_named(name).messages(f" {QUESTION}\n") == GOLDEN[name]["messages"]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_stops(name: str) -> None:
    assert profile_named(name).tags.stops == STOPS[name]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_observation(name: str) -> None:
    assert profile_named(name).observation(FOUND) == GOLDEN[name]["observation"]
    assert profile_named(name).observation(()) == GOLDEN[name]["nothing_found"]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_turn_without_an_action_gets_no_text(name: str) -> None:
    assert profile_named(name).retry is None


@pytest.mark.parametrize("name", GOLDEN)
def test_the_rendered_prompt(name: str, tokenizer: Tokenizer) -> None:
    """A base model's prompt goes without the chat template; a system message takes the place of Qwen's own."""
    profile = profile_named(name)
    rendered = tokenizer.render(profile.prompt(QUESTION), system=profile.system, chat=profile.chat)
    *system, user = [message["content"] for message in GOLDEN[name]["messages"]]
    told = system[0] if system else "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    chat = f"<|im_start|>system\n{told}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    assert rendered == (chat if profile.chat else user)


def test_a_tag_of_search_o1_is_ordinary_text_in_qwens_vocabulary() -> None:
    ids = qwen.load().encode("<|end_search_query|>")
    assert qwen.load().pieces(ids) == ["<", "|", "end", "_search", "_query", "|", ">"]
    assert max(ids) < min(qwen.SPECIAL.values())
