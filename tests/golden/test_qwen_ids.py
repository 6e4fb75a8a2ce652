"""Token ids of the loop with Qwen's real vocabulary, written out: what a trained checkpoint must be fed.

Ids in this file and in ``three_turns.json`` were made once with ``tiktoken`` from the vocabulary that ``qwen.py`` pins,
and read piece by piece. They change only if the vocabulary, the prompt texts or the loop's rules change; then a
checkpoint would read other bytes than it was trained on.
"""

import json
from itertools import chain
from pathlib import Path

import pytest

from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Generate, Limits, Passage, Search, Status
from tests.golden import qwen

Q = qwen.load()
SEARCH = "<think> I need Mali. </think>\n<search> capital of Mali </search>"
NOTHING = "I am not sure."
ANSWER = "<think> Found. </think>\n<answer> Bamako </answer>"
SENTENCE = "Bamako is the capital of Mali. "

OPEN = [271, 27, 25069, 29]  # "\n\n" "<" "information" ">"
CLOSE = [522, 25069, 1339]  # "</" "information" ">\n\n"
RETRY = [
    *(198, 5050, 3681, 1917, 374, 8318, 13),  # "\nMy previous action is invalid."
    *(1416, 358, 1366, 311, 2711, 11, 358, 1265, 2182, 279, 3239, 1948, 366, 1836, 29, 323, 690, 1836, 14276),
    *(1416, 358, 1366, 311, 2968, 279, 1590, 4226, 11, 358, 1265, 2182, 279, 4226, 1948, 366, 9217, 29, 323, 690),
    *(9217, 14276, 6771, 752, 1430, 1549, 624),  # "answer" ">." " Let" " me" " try" " again" ".\n"
]


def new_rollout(prompt_ids: list[int], limits: Limits | None = None) -> Rollout:
    return Rollout(prompt="", prompt_ids=prompt_ids, encode=Q.encode, limits=limits)


def turn(rollout: Rollout, text: str, passages: list[Passage] | None = None) -> None:
    rollout.receive_text(text, Q.encode(text))
    rollout.end_completion("stop")
    if passages is not None:
        assert isinstance(rollout.action, Search)
        rollout.receive_passages(passages)


def sent(rollout: Rollout) -> list[int]:
    assert isinstance(rollout.action, Generate)
    return list(rollout.action.prompt_ids)


def test_the_vocabulary() -> None:
    assert len(qwen.ranks()) == 151_643 == min(qwen.SPECIAL.values())
    for text, ids in qwen.PUBLISHED.items():
        assert Q.encode(text) == ids


@pytest.mark.parametrize(
    ("text", "ids", "pieces"),
    [
        ("</search>", [522, 1836, 29], ["</", "search", ">"]),
        ("</answer>", [522, 9217, 29], ["</", "answer", ">"]),
        ("</search>\n", [522, 1836, 397], ["</", "search", ">\n"]),
        ("</search>\n\n", [522, 1836, 1339], ["</", "search", ">\n\n"]),
        ("</search>.", [522, 1836, 14276], ["</", "search", ">."]),
        ("q </search>", [80, 690, 1836, 29], ["q", " </", "search", ">"]),
        ("q.</search>", [80, 3918, 1836, 29], ["q", ".</", "search", ">"]),
        ("q?</search>", [80, 26055, 1836, 29], ["q", "?</", "search", ">"]),
        ("q ?</search>", [80, 937, 522, 1836, 29], ["q", " ?", "</", "search", ">"]),
        ("<information>", [27, 25069, 29], ["<", "information", ">"]),
        ("</information>\n\n", CLOSE, ["</", "information", ">\n\n"]),
    ],
)
def test_tags_share_tokens_with_their_neighbors(text: str, ids: list[int], pieces: list[str]) -> None:
    assert Q.encode(text) == ids
    assert Q.pieces(ids) == pieces


def test_an_observation_starts_its_own_token() -> None:
    rollout = new_rollout([1])
    turn(rollout, "<search> q </search>", [Passage("1", "A", "b")])
    passage = [9550, 220, 16, 7, 3851, 25, 362, 8, 293]  # "Doc" " " "1" "(" "Title" ":" " A" ")" " b"
    assert sent(rollout) == [1, 27, 1836, 29, 2804, 690, 1836, 29, *OPEN, *passage, *CLOSE]
    joined = Q.encode("<search> q </search>\n\n<information>Doc 1(Title: A) b</information>\n\n")
    assert joined == [27, 1836, 29, 2804, 690, 1836, 1339, 27, 25069, 29, *passage, *CLOSE]


@pytest.mark.parametrize("last", [29, 397, 1339, 14276])
@pytest.mark.parametrize(("before", "ids_before"), [(" q", [2804, 690]), ("q?", [80, 26055]), ("q.", [80, 3918])])
def test_a_stop_inside_a_token_is_cut_and_tokenized_again(last: int, before: str, ids_before: list[int]) -> None:
    sampled = [27, 1836, 29, *ids_before, 1836, last]
    rollout = new_rollout([1])
    for token in sampled:
        rollout.receive_text(Q.decode([token]), [token])
    rollout.end_completion("stop")
    completion = rollout.segments[1]
    assert completion.text.startswith("<search>" + before)
    assert completion.ids == (27, 1836, 29, *ids_before, 1836, 29)
    assert completion.sampled_ids == tuple(sampled)


def test_the_empty_result() -> None:
    rollout = new_rollout([1])
    turn(rollout, SEARCH, [])
    assert rollout.segments[-1].ids == (271, 27, 25069, 1472, 25069, 1339)  # "></" is one token


def test_an_observation_over_500_tokens_keeps_its_first_500_and_loses_its_end() -> None:
    rollout = new_rollout([1])
    turn(rollout, SEARCH, [Passage("1", '"Mali"', SENTENCE * 100)])
    observation = rollout.segments[-1]
    head = [*OPEN, 9550, 220, 16, 7, 3851, 25, 330, 44, 7956, 899]  # … Doc 1(Title: "Mali")
    sentence = [55007, 28786, 374, 279, 6722, 315, 63894, 13]  # " Bam" "ako" " is" " the" " capital" " of" " Mali" "."
    assert list(observation.ids) == (head + sentence * 100)[:500]
    assert "</information>" in observation.text
    assert "</information>" not in Q.decode(list(observation.ids))
    assert sent(rollout)[-500:] == list(observation.ids)


def test_the_retry_text() -> None:
    rollout = new_rollout([1])
    turn(rollout, NOTHING)
    assert Q.encode(NOTHING) == [40, 1079, 537, 2704, 13]
    assert sent(rollout) == [1, 40, 1079, 537, 2704, 13, *RETRY]
    assert rollout.loss_mask == (False, *[True] * 5, *[False] * len(RETRY))


def test_the_input_is_cut_on_the_left_at_4096() -> None:
    prompt_ids = list(range(100_000, 104_000))
    rollout = new_rollout(prompt_ids)
    assert sent(rollout) == prompt_ids
    turn(rollout, SEARCH, [Passage("1", '"Mali"', SENTENCE * 100)])
    num_added = len(Q.encode(SEARCH)) + 500
    assert sent(rollout) == [*prompt_ids[num_added - 96 :], *Q.encode(SEARCH), *rollout.segments[-1].ids]
    assert len(sent(rollout)) == 4096
    turn(rollout, NOTHING)
    assert len(sent(rollout)) == 4096
    assert sent(rollout)[-len(RETRY) :] == RETRY
    assert len(rollout.ids) == 4000 + num_added + 5 + len(RETRY)


def test_a_prompt_over_4096_is_cut_on_the_left_too() -> None:
    rollout = new_rollout(list(range(5000)))
    assert sent(rollout) == list(range(904, 5000))


def golden() -> dict[str, list[dict[str, list[int]]]]:
    loaded: dict[str, list[dict[str, list[int]]]] = json.loads(Path(__file__).with_name("three_turns.json").read_text())
    return loaded


def three_turns() -> tuple[Rollout, list[list[int]]]:
    """A search, a turn without an action and an answer, in Qwen2.5's chat form; with the ids asked for at each turn."""
    question = SEARCH_R1.prompt("What is the capital of Mali")
    rendered = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    rollout = new_rollout(Q.encode_prompt(rendered))
    asked = [sent(rollout)]
    turn(rollout, SEARCH, [Passage("1", '"Mali"', "Its capital is Bamako."), Passage("2", '"Fiji"', "An island.")])
    asked.append(sent(rollout))
    turn(rollout, NOTHING)
    asked.append(sent(rollout))
    turn(rollout, ANSWER)
    return rollout, asked


def test_a_whole_trajectory() -> None:
    rollout, _ = three_turns()
    assert rollout.status is Status.COMPLETED
    segments = golden()["segments"]
    assert [list(s.ids) for s in rollout.segments] == [s["ids"] for s in segments]
    assert [s.text for s in rollout.segments[1:]] == [Q.decode(s["ids"]) for s in segments[1:]]


def test_each_turn_is_sent_the_prompt_and_the_segments_before_it() -> None:
    _, asked = three_turns()
    segments = [s["ids"] for s in golden()["segments"]]
    assert asked == [[*chain(*segments[:end])] for end in (1, 3, 5)]


def test_joined_text_would_have_been_read_otherwise() -> None:
    rollout, asked = three_turns()
    joined = Q.encode("".join(s.text for s in rollout.segments[1:3]))
    assert joined != asked[1][len(rollout.segments[0].ids) :]
