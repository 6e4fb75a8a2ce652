"""The ids that enter the context: in serving, of the text tokenized alone; in training, as they were sampled."""

from searchr1.loop.machine import Rollout
from searchr1.loop.types import Segment

SPELLED = ["<answer>", " Mali", " </", "answer", ">", ">\n", "", "<search>", " q", " </search>"]


def spell(ids: tuple[int, ...]) -> str:
    return "".join(SPELLED[i] if i < 100 else chr(i - 100) for i in ids)


def trained(ids: tuple[int, ...], text: str) -> Segment:
    """The completion's segment where sampled ids stand; what is encoded anew has ids from 100 on."""
    rollout = Rollout(prompt="p", prompt_ids=(1,), encode=lambda text: [100 + ord(c) for c in text], decode=spell)
    rollout.receive_text(text, ids, [-0.5] * len(ids))
    rollout.end_completion("stop")
    return rollout.segments[1]


def test_in_training_the_sampled_ids_stand() -> None:
    segment = trained((0, 1, 2, 3, 4), "<answer> Mali </answer>")
    assert segment.ids == segment.sampled_ids == (0, 1, 2, 3, 4)
    assert segment.num_verbatim == 5
    assert segment.logprobs == (-0.5,) * 5


def test_in_training_only_a_token_past_the_cut_is_replaced() -> None:
    segment = trained((0, 1, 2, 3, 5), "<answer> Mali </answer>")
    assert segment.ids == (0, 1, 2, 3, 100 + ord(">"))
    assert segment.num_verbatim == 4
    assert segment.sampled_ids == (0, 1, 2, 3, 5)


def test_in_training_an_end_of_text_stays_out_of_the_context() -> None:
    segment = trained((0, 1, 6, 6), "<answer> Mali")
    assert segment.ids == (0, 1)
    assert segment.num_verbatim == 2


def test_in_training_text_that_no_id_spells_is_encoded() -> None:
    segment = trained((), "<search> q </search>")
    assert segment.num_verbatim == 0
    assert len(segment.ids) == len("<search> q </search>")


def test_in_serving_no_sampled_id_stands() -> None:
    rollout = Rollout(prompt="p", prompt_ids=(1,), encode=lambda text: [7] * len(text))
    rollout.receive_text("<answer> x </answer>", (0, 1))
    rollout.end_completion("stop")
    assert rollout.segments[1].num_verbatim == 0
