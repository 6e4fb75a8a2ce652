from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from searchr1.errors import ConfigurationError
from searchr1.trainer.warmup.growth import choose_shape, grow, read_shape, start_from
from searchr1.trainer.warmup.initialize import start_with_induction
from searchr1.trainer.warmup.model import ModelShape, build_model, export_model

SMALL = ModelShape(vocab_size=64, hidden_size=256, mlp_size=96, num_layers=3, num_heads=4, max_position=64)
IDS = torch.arange(40).view(2, 20) % 23


def small_model() -> Qwen2ForCausalLM:
    model = build_model(SMALL, end_id=2, pad_id=0, seed=1)
    start_with_induction(model, seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 2.0)
    return model


def logits(model: Qwen2ForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return result


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 5},
        {"hidden_size": 384, "num_heads": 6},
        {"mlp_size": 200},
        {"hidden_size": 320, "num_heads": 5, "mlp_size": 192, "num_layers": 4},
        {},
    ],
)
def test_a_grown_model_computes_what_the_smaller_one_does(change: dict[str, int]) -> None:
    small = small_model()
    large = build_model(replace(SMALL, **change), end_id=2, pad_id=0, seed=7)
    before = logits(large)

    grow(large, small)

    expected = logits(small)
    assert not torch.allclose(before, expected, atol=0.1)
    torch.testing.assert_close(logits(large), expected, rtol=2e-3, atol=2e-3)


def test_everything_that_is_new_learns() -> None:
    torch.manual_seed(0)
    shape = replace(SMALL, hidden_size=320, num_heads=5, mlp_size=128, num_layers=4)
    large = build_model(shape, end_id=2, pad_id=0, seed=7)
    grow(large, small_model())
    start = {name: parameter.detach().clone() for name, parameter in large.named_parameters()}
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)

    for _ in range(3):
        optimizer.zero_grad()
        large(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()

    width = SMALL.hidden_size
    for name, parameter in large.named_parameters():
        moved = (parameter.detach() - start[name]).abs()
        assert moved.max() > 0, name
        if parameter.shape[-1] == shape.hidden_size:
            assert moved[..., width:].max() > 0, name


def test_old_layers_keep_their_order_and_ends() -> None:
    small = small_model()
    large = build_model(replace(SMALL, num_layers=7), end_id=2, pad_id=0, seed=7)

    grow(large, small)

    biases = [layer.self_attn.q_proj.bias for layer in large.model.layers]
    for place, old in zip((0, 3, 6), small.model.layers, strict=True):
        torch.testing.assert_close(biases[place], old.self_attn.q_proj.bias)
    assert all(not large.model.layers[place].mlp.down_proj.weight.any() for place in (1, 2, 4, 5))


def test_new_heads_of_the_first_layer_look_further_back() -> None:
    large = build_model(replace(SMALL, hidden_size=384, num_heads=6), end_id=2, pad_id=0, seed=7)
    large.set_attn_implementation("eager")
    grow(large, small_model())

    with torch.no_grad():
        attention = large(input_ids=IDS, use_cache=False, output_attentions=True).attentions[0][0]

    for head, distance in ((4, 5), (5, 6)):
        assert attention[head, 19].argmax() == 19 - distance


def test_a_checkpoint_is_read_and_grown(tmp_path: Path) -> None:
    small = small_model()
    for parameter in small.parameters():
        parameter.data = parameter.data.bfloat16().float()
    export_model(small, tmp_path)

    assert read_shape(tmp_path) == SMALL
    shape = choose_shape(tmp_path, hidden_size=320, num_layers=4)
    assert shape == replace(SMALL, hidden_size=320, mlp_size=960, num_heads=5, num_layers=4)
    large = build_model(shape, end_id=2, pad_id=0, seed=7)
    start_from(large, tmp_path)
    torch.testing.assert_close(logits(large), logits(small), rtol=0.05, atol=0.05)


def test_without_a_wish_the_shape_is_that_of_the_start_or_the_demos(tmp_path: Path) -> None:
    export_model(small_model(), tmp_path)
    assert choose_shape(tmp_path, hidden_size=None, num_layers=None) == SMALL
    assert choose_shape(None, hidden_size=None, num_layers=None) == ModelShape(vocab_size=2048)
    deep = choose_shape(None, hidden_size=None, num_layers=8)
    assert deep == ModelShape(vocab_size=2048, num_layers=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 2}, "num_hidden_layers 3 cannot shrink to 2"),
        ({"mlp_size": 64}, "intermediate_size 96 cannot shrink to 64"),
        ({"num_heads": 2}, "head size"),
        ({"vocab_size": 80}, "vocabulary of 64 tokens cannot grow to 80"),
    ],
)
def test_what_cannot_grow_is_said(change: dict[str, int], message: str) -> None:
    large = build_model(replace(SMALL, **change), end_id=2, pad_id=0, seed=7)
    with pytest.raises(ConfigurationError, match=message):
        grow(large, small_model())


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="multiple of 64, not 300"):
        choose_shape(None, hidden_size=300, num_layers=None)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_an_unreadable_start_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"config\.json does not describe"):
        choose_shape(tmp_path, hidden_size=None, num_layers=None)
