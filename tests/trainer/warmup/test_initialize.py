"""Copying by an untrained model that starts with induction."""

import pytest
import torch

from searchr1.errors import ConfigurationError
from searchr1.trainer.warmup.drill import drill_batch
from searchr1.trainer.warmup.initialize import start_with_induction
from searchr1.trainer.warmup.model import ModelShape, build_model, masked_loss

SHAPE = ModelShape(vocab_size=512, hidden_size=256, mlp_size=64, num_layers=3, num_heads=4)


def test_a_model_that_starts_with_induction_copies_unseen_names_untrained() -> None:
    model = build_model(SHAPE, end_id=2, pad_id=0, seed=0)
    drill = drill_batch(0, rows=4, num_special=3, vocab_size=512, seed=0)
    losses = []
    for prepare in (False, True):
        if prepare:
            start_with_induction(model, seed=0)
        with torch.inference_mode():
            sums = masked_loss(model, drill, torch.device("cpu"))
        losses.append(sums.loss.item() / sums.num_tokens)
    blank, prepared = losses
    assert blank > 6
    assert prepared < blank / 2


def test_it_goes_on_with_the_passage_that_it_began_to_copy() -> None:
    """Three phrases share one, two or five tokens; what came before these tells which of them goes on."""
    model = build_model(SHAPE, end_id=2, pad_id=0, seed=0)
    start_with_induction(model, seed=0)
    random = torch.Generator().manual_seed(0)
    for num_shared in (1, 2, 5):
        right = 0
        for _ in range(100):
            filler = torch.randint(3, 512, (200,), generator=random)
            shared = torch.randint(3, 512, (num_shared,), generator=random)
            phrases = [torch.randint(3, 512, (2, 3), generator=random) for _ in range(3)]
            told = [torch.cat([before, shared, after]) for before, after in phrases]
            before, after = phrases[1]
            ids = torch.cat([filler[:50], told[0], told[1], filler[50:150], told[2], filler[150:], before, shared])
            with torch.inference_mode():
                right += int(model(ids[None], use_cache=False).logits[0, -1].argmax() == after[0])
        assert right > 80, num_shared


@pytest.mark.parametrize(
    "shape",
    [
        ModelShape(512, 128, 64, 3, 2),
        ModelShape(512, 128, 64, 3, 4),
        ModelShape(512, 256, 64, 2, 4),
        ModelShape(512, 256, 64, 3, 4, rope_theta=10_000.0),
    ],
)
def test_a_model_too_small_for_it_is_refused(shape: ModelShape) -> None:
    model = build_model(shape, end_id=2, pad_id=0, seed=0)
    with pytest.raises(ConfigurationError, match="three layers, 4 heads of 64 or more"):
        start_with_induction(model, seed=0)


def test_the_same_seed_gives_the_same_start() -> None:
    models = [build_model(SHAPE, end_id=2, pad_id=0, seed=0) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        start_with_induction(model, seed=seed)
    one, same, other = (model.model.layers[1].self_attn.v_proj.weight for model in models)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
