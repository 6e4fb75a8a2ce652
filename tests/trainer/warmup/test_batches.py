import numpy as np
import torch

from searchr1.trainer.warmup.batches import BatchPlan
from searchr1.trainer.warmup.demonstrations import Samples
from searchr1.trainer.warmup.model import build_model, masked_loss
from tests.trainer.conftest import TINY


def samples(lengths: list[int]) -> Samples:
    random = np.random.default_rng(0)
    total = sum(lengths)
    return Samples(
        random.integers(3, TINY.vocab_size, total).astype(np.uint16),
        random.random(total) < 0.5,
        np.cumsum([0, *lengths]),
    )


def test_an_epoch_takes_every_sample_once_and_the_next_in_another_order() -> None:
    plan = BatchPlan(samples(list(range(5, 105))), batch_size=10, pad_id=0, seed=1)
    first = np.concatenate([plan.rows(number) for number in range(10)])
    second = np.concatenate([plan.rows(number) for number in range(10, 20)])
    assert sorted(first) == sorted(second) == list(range(100))
    assert list(first) != list(second)


def test_a_batch_depends_on_nothing_but_its_number() -> None:
    data = samples(list(range(5, 105)))
    walked = BatchPlan(data, batch_size=10, pad_id=0, seed=1)
    for number in range(13):
        walked.batch(number)
    jumped = BatchPlan(data, batch_size=10, pad_id=0, seed=1)
    assert torch.equal(walked.batch(13).ids, jumped.batch(13).ids)


def test_the_processes_share_a_batch_without_overlap() -> None:
    plan = BatchPlan(samples([7] * 8), batch_size=4, pad_id=0, seed=1)
    whole = plan.batch(0).ids.tolist()
    parts = [plan.batch(0, rank=rank, world_size=2).ids.tolist() for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_padding_and_neighbours_change_no_loss() -> None:
    data = samples([6, 40, 23, 11])
    model = build_model(TINY, end_id=2, pad_id=0, seed=0)
    cpu = torch.device("cpu")
    with torch.inference_mode():
        alone = [
            masked_loss(model, BatchPlan(_one(data, row), batch_size=1, pad_id=0, seed=0).batch(0), cpu)
            for row in range(4)
        ]
        together = masked_loss(model, BatchPlan(data, batch_size=4, pad_id=0, seed=0).batch(0), cpu)
    assert together.num_tokens == sum(part.num_tokens for part in alone)
    assert torch.allclose(together.loss, torch.stack([part.loss for part in alone]).sum(), rtol=2e-3)


def _one(data: Samples, row: int) -> Samples:
    span = slice(data.offsets[row], data.offsets[row + 1])
    return Samples(data.ids[span], data.loss_mask[span], np.array([0, span.stop - span.start]))
