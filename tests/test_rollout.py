"""Starting rollouts: what the policy goes on from, by profile, and profiles that a checkpoint can't be asked by."""

from pathlib import Path

import pytest

from searchr1.errors import ConfigurationError
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named, registered
from searchr1.loop.types import Generate, Limits
from searchr1.rollout import check_profile, start_rollout, start_rollout_of_message
from searchr1.tokenizer import Tokenizer
from tests.test_tokenizer import QWEN_TEMPLATE, load, raw_tokenizer, write_folder

QUESTION = "Where is Timbuktu?"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"


def header(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


@pytest.mark.parametrize("profile", registered(), ids=lambda profile: str(profile.name))
def test_the_prompt_is_the_profiles_messages_in_the_chat_template(tmp_path: Path, profile: Profile) -> None:
    tokenizer = load(tmp_path, chat_template=QWEN_TEMPLATE)
    check_profile(profile, tokenizer)
    rollout = start_rollout(QUESTION, tokenizer, profile=profile, limits=Limits(max_context_tokens=10_000))
    messages = "".join(header(m["role"], m["content"]) for m in profile.messages(QUESTION))
    expected = f"{messages}<|im_start|>assistant\n" if profile.chat else profile.prompt(QUESTION)
    assert isinstance(rollout.action, Generate)
    assert rollout.segments[0].text == expected
    assert list(rollout.action.prompt_ids) == tokenizer.encode_prompt(expected)
    assert rollout.profile is profile
    worded = start_rollout_of_message(profile.prompt(QUESTION), tokenizer, profile=profile)
    assert worded.segments == rollout.segments


@pytest.mark.parametrize("name", ["search-r1", "research-base", "search-o1"])
def test_a_profile_without_a_system_message_needs_no_template(tmp_path: Path, name: str) -> None:
    tokenizer, profile = load(tmp_path), profile_named(name)
    check_profile(profile, tokenizer)
    assert start_rollout(QUESTION, tokenizer, profile=profile).segments[0].text == profile.prompt(QUESTION)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (None, "there is no chat template to put the system message in"),
        (NO_SYSTEM, "refuses a system message and a user turn: no system role"),
        ("{{ messages[-1].content }}", "its chat template leaves the system message or the user's out"),
        ("{{ messages[0].content }}", "its chat template leaves the system message or the user's out"),
    ],
)
def test_a_system_message_that_has_no_place_is_refused(tmp_path: Path, template: str | None, reason: str) -> None:
    tokenizer = load(tmp_path, **({} if template is None else {"chat_template": template}))
    with pytest.raises(ConfigurationError, match=f"'research' does not fit the model's tokenizer: .*{reason}"):
        check_profile(profile_named("research"), tokenizer)


def test_tags_that_are_special_tokens_are_refused(tmp_path: Path) -> None:
    raw = raw_tokenizer()
    raw.add_special_tokens(["<|begin_search_query|>"])
    tokenizer = Tokenizer.load(str(write_folder(tmp_path, raw, chat_template=QWEN_TEMPLATE)))
    check_profile(profile_named("search-r1"), tokenizer)
    with pytest.raises(ConfigurationError, match=r"'search-o1' does not fit .*'<\|begin_search_query\|>' is reserved"):
        check_profile(profile_named("search-o1"), tokenizer)
