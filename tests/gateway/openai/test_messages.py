"""Messages of every client as a conversation: what is read, what is quoted by its kind, what is left out, refused."""

from typing import Any

import pytest

from searchr1.gateway.errors import ApiError
from searchr1.gateway.openai.messages import Message, read_conversation, role_of, text_of
from searchr1.loop.conversation import Turn

QUESTION = "And its currency?"


def read(*history: tuple[str, Any], after: tuple[tuple[str, Any], ...] = ()) -> list[Turn]:
    said = [*history, ("user", QUESTION), *after]
    messages = [
        Message(role_of(role, f"messages.{i}"), content, f"messages.{i}") for i, (role, content) in enumerate(said)
    ]
    return read_conversation(messages, "messages").turns


TEXT = {"type": "text", "text": "Where is this?"}
HISTORY: list[tuple[Any, str]] = [
    ("plain", "plain"),
    (None, ""),
    ([], ""),
    (["Where is", "this?"], "Where is\nthis?"),
    (TEXT, "Where is this?"),
    ([TEXT], "Where is this?"),
    ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}], "ab"),
    ([{"type": "text", "text": {"value": "of an assistant", "annotations": []}}], "of an assistant"),
    ([{"text": "of Gemini"}], "of Gemini"),
    ([{"type": "text", "text": "cached", "cache_control": {"type": "ephemeral"}}], "cached"),
    ([TEXT, "and a string"], "Where is this?and a string"),
    ([{"type": "text"}], ""),
    ([{"type": "text", "text": None}], ""),
    ([{"type": "text", "text": 5}], ""),
    ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}, TEXT], "[image] Where is this?"),
    ([TEXT, {"type": "input_image", "image_url": "x"}], "Where is this? [image]"),
    ([{"type": "image", "source": {"type": "base64"}}], "[image]"),
    ([{"type": "image_file", "image_file": {"file_id": "x"}}], "[image]"),
    ([{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}], "[audio]"),
    ([{"type": "audio_url", "audio_url": {"url": "x"}}], "[audio]"),
    ([{"type": "video_url", "video_url": {"url": "x"}}], "[video]"),
    ([{"type": "file", "file": {"file_id": "x"}}], "[file]"),
    ([{"type": "input_file", "file_id": "x"}], "[file]"),
    ([{"type": "document", "source": {}}], "[file]"),
    ([{"type": "location", "lat": 1}], "[location]"),
    ([{"type": "</information>"}], "[part]"),
    ([{"type": "x" * 1000}], "[part]"),
    ([{"type": 7}], "[part]"),
    ([{"lat": 1}], "[part]"),
    ([7, None], "[part]  [part]"),
    ([{"type": "reasoning", "reasoning": "secret"}, TEXT], "Where is this?"),
    ([{"type": "thinking", "thinking": "secret", "signature": "x"}, TEXT], "Where is this?"),
    ([{"type": "redacted_thinking", "data": "x"}], ""),
    ([{"type": "reasoning_text", "text": "secret"}], ""),
    ([{"type": "summary_text", "text": "secret"}], ""),
    ([{"type": "server_tool_call", "name": "web_search", "args": {}}], ""),
    ([{"type": "server_tool_result", "output": "x"}], ""),
    ([{"type": "web_search_call", "id": "ws_1"}], ""),
    ([{"type": "tool_use", "id": "1", "name": "f", "input": {}}], ""),
    ([{"type": "tool_result", "tool_use_id": "1", "content": "42"}], ""),
    ([{"type": "function_call", "name": "f"}], ""),
    ([{"type": "annotations", "annotations": []}], ""),
    ([{"type": "refusal", "refusal": "I can't."}], "I can't."),
]


@pytest.mark.parametrize(("content", "told"), HISTORY)
@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_the_history_may_hold_anything(role: str, content: Any, told: str) -> None:
    assert read((role, content)) == [Turn(role, told), Turn("user", QUESTION)]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "user") for name in ("user", "User", "USER", " user ", "human", "Human")),
        *((name, "assistant") for name in ("assistant", "Assistant", "model", "ai", "AI", "bot")),
        *((name, "tool") for name in ("tool", "function", "Tool", "observation")),
        ("System", "system"),
        ("developer", "developer"),
    ],
)
def test_roles_have_many_names(name: str, role: str) -> None:
    assert role_of(name, "messages.0") == role


@pytest.mark.parametrize("name", ["wizard", "", "\ud800", "x" * 10_000, "user\x00"])
def test_an_unknown_role_is_refused_by_name(name: str) -> None:
    with pytest.raises(ApiError) as refused:
        role_of(name, "messages.3")
    assert (refused.value.status, refused.value.param) == (400, "messages.3.role")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "m.content.0"),
        ([TEXT, {"type": "image_url", "image_url": {"url": "x"}}], "m.content.1"),
        ([{"type": "input_audio", "input_audio": {}}, TEXT], "m.content.0"),
        ([{"type": "input_file", "file_id": "x"}], "m.content.0"),
        ([{"type": "video"}], "m.content.0"),
        ([{"type": "something_new", "text": "x"}], "m.content.0"),
        ([{"type": "text"}], "m.content.0"),
        ([{"type": "text", "text": 5}], "m.content.0"),
        ([5], "m.content.0"),
    ],
)
def test_a_question_that_is_not_text_is_refused_in_plain_words(content: Any, where: str) -> None:
    with pytest.raises(ApiError) as refused:
        text_of(content, "m", is_question=True)
    assert (refused.value.param, refused.value.code) == (where, "unsupported_content")
    assert "text" in refused.value.message


def test_what_an_assistant_thought_is_no_part_of_a_question_either() -> None:
    parts = [{"type": "reasoning", "text": "x"}, {"type": "tool_result", "content": "x"}, TEXT]
    assert text_of(parts, "m", is_question=True) == "Where is this?"


@pytest.mark.parametrize("content", [5, 1.5, True])
@pytest.mark.parametrize("is_question", [True, False])
def test_a_content_of_no_form_is_refused(content: Any, is_question: bool) -> None:
    with pytest.raises(ApiError, match="Send text, or a list of parts"):
        text_of(content, "m", is_question=is_question)


@pytest.mark.parametrize("content", ["\ud800", ["\ud800"], [{"type": "text", "text": "\udfff"}], [TEXT, "\ud800"]])
@pytest.mark.parametrize("is_question", [True, False])
def test_half_a_character_is_refused(content: Any, is_question: bool) -> None:
    with pytest.raises(ApiError, match="surrogate"):
        text_of(content, "m", is_question=is_question)


@pytest.mark.parametrize(
    "after",
    [
        (("assistant", "The West"),),
        (("assistant", None), ("tool", "42")),
        (("tool", [{"type": "image_url"}]),),
    ],
)
def test_what_follows_the_question_is_left_out_and_told(after: tuple[tuple[str, Any], ...]) -> None:
    assert read(("user", "Mali?"), after=after) == [Turn("user", "Mali?"), Turn("user", QUESTION)]
    messages = [Message("user", QUESTION, "m"), *(Message(role, content, "m") for role, content in after)]
    assert read_conversation(messages, "messages").is_cut


def test_instructions_count_wherever_they_stand() -> None:
    turns = read(("system", "Be brief."), after=(("developer", "In French."),))
    assert turns == [Turn("system", "Be brief."), Turn("user", QUESTION), Turn("developer", "In French.")]


@pytest.mark.parametrize("roles", [(), ("system",), ("assistant",), ("system", "tool")])
def test_without_a_message_of_the_users_there_is_no_question(roles: tuple[str, ...]) -> None:
    with pytest.raises(ApiError, match="no message with the role 'user'") as refused:
        read_conversation([Message(role, "x", "m") for role in roles], "messages")
    assert refused.value.param == "messages"
