"""Stop sequences: the answer ends before the first one, streamed or whole; reasoning does not."""

import json
from typing import Any

import pytest

from searchr1.gateway.chat.stop import cut, read_stops
from searchr1.gateway.errors import ApiError
from tests.gateway.conftest import ANSWER_TURN, MODEL, SEARCH_TURN, Stage, StageEngine, running_stage, sse_payloads

ANSWER = "West African CFA franc"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Which currency is used in Mali?"}]}


@pytest.mark.parametrize(
    ("stops", "left"),
    [
        ([], "a b c b"),
        (["x"], "a b c b"),
        (["b"], "a "),
        (["c", "b"], "a "),
        (["b c", "b"], "a "),
        (["a"], ""),
        (["a b c b"], ""),
        (["a b c b d"], "a b c b"),
    ],
)
def test_an_answer_is_cut_at_the_first_stop(stops: list[str], left: str) -> None:
    assert cut("a b c b", stops) == left


@pytest.mark.parametrize(
    ("given", "stops"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ([""], ()),
        ("\n", ("\n",)),
        (["", "a"], ("a",)),
        (["a", "b", "c", "d"], ("a", "b", "c", "d")),
        (["<|endoftext|>"], ("<|endoftext|>",)),
        (["x" * 1000], ("x" * 1000,)),
    ],
)
def test_what_a_stop_may_be(given: Any, stops: tuple[str, ...]) -> None:
    assert read_stops(given) == stops


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["a"] * 5, "above_maximum"),
        (["x" * 1001], "string_too_long"),
        ("x" * 1001, "string_too_long"),
        ([None], "invalid_type"),
        ([1], "invalid_type"),
        ([["a"]], "invalid_type"),
        (5, "invalid_type"),
        ({"a": "b"}, "invalid_type"),
        (True, "invalid_type"),
    ],
)
def test_what_it_may_not_be(given: Any, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_stops(given)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "stop", code)


async def asked(stage: Stage, **given: Any) -> list[dict[str, Any]]:
    """The choices of a completion, or of what its chunks add up to, and the sources."""
    response = await stage.client.post("/v1/chat/completions", json={**ASK, **given})
    assert response.status_code == 200, response.text
    if not given.get("stream"):
        return [response.json()]
    chunks = [json.loads(payload) for payload in sse_payloads(response.text)[:-1]]
    whole: dict[str, Any] = {"content": "", "reasoning": ""}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        whole["content"] += delta.get("content", "")
        whole["reasoning"] += delta.get("reasoning", "")
        whole["annotations"] = delta.get("annotations", [])
    found = next(chunk for chunk in chunks if "citations" in chunk)
    finish = chunks[-1]["choices"][0]["finish_reason"]
    return [{"choices": [{"message": whole, "finish_reason": finish}], "citations": found["citations"]}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stop", "left"),
    [
        ("CFA", "West African "),
        (["franc", " CFA"], "West African"),
        (["\nObservation:", "CFA fra"], "West African "),
        (["I need", "search"], ANSWER),
        (["</answer>", "<think>"], ANSWER),
        ("West", ""),
    ],
)
async def test_the_answer_is_cut_and_the_reasoning_is_not(stop: Any, left: str, stream: bool) -> None:
    async with running_stage() as stage:
        (completion,) = await asked(stage, stop=stop, stream=stream)
        (uncut,) = await asked(stage, stream=stream)
    (choice,) = completion["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (left, "stop")
    assert choice["message"]["reasoning"] == uncut["choices"][0]["message"]["reasoning"]
    assert completion["citations"] == (["urn:passage:Mali"] if left else [])
    ends = [annotation["url_citation"]["end_index"] for annotation in choice["message"]["annotations"]]
    assert ends == ([len(left)] if left else [])


async def test_every_choice_is_cut() -> None:
    engine = StageEngine([SEARCH_TURN, SEARCH_TURN, ANSWER_TURN, ANSWER_TURN])
    async with running_stage(engine=engine) as stage:
        (completion,) = await asked(stage, stop="CFA", n=2, temperature=1)
    assert [choice["message"]["content"] for choice in completion["choices"]] == ["West African "] * 2
