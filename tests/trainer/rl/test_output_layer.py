"""Logprobs, entropies and gradients of the output layer: those that autograd finds through all logits at once."""

import pytest
import torch
from torch.nn.functional import linear

from searchr1.trainer.rl.output_layer import chosen_stats

NUM, HIDDEN, VOCAB = 13, 8, 40


def inputs(*, with_bias: bool = True) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(NUM, HIDDEN, generator=random, requires_grad=True)
    targets = torch.randint(0, VOCAB, (NUM,), generator=random)
    weight = torch.randn(VOCAB, HIDDEN, generator=random, requires_grad=True)
    return hidden, targets, weight, torch.randn(VOCAB, generator=random, requires_grad=True) if with_bias else None


def plain(
    hidden: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    log_p = linear(hidden, weight, bias).log_softmax(-1)
    return log_p.gather(-1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def weighted(logprobs: torch.Tensor, entropies: torch.Tensor, *, of: str) -> torch.Tensor:
    """A loss that weighs every token otherwise."""
    random = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, NUM, generator=random)
    terms = {"logprobs": first * logprobs, "entropies": second * entropies}
    return sum((terms[name].sum() for name in of.split()), torch.zeros(()))


@pytest.mark.parametrize("of", ["logprobs", "entropies", "logprobs entropies"])
@pytest.mark.parametrize("chunk_tokens", [1, 5, 13, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_autograd(of: str, chunk_tokens: int, with_bias: bool) -> None:
    mine, theirs = inputs(with_bias=with_bias), inputs(with_bias=with_bias)
    found = chosen_stats(*mine, dtype=torch.float32, chunk_tokens=chunk_tokens)
    wanted = plain(*theirs)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.autograd.backward(weighted(*found, of=of))
    torch.autograd.backward(weighted(*wanted, of=of))
    for tensor, like in ((mine[0], theirs[0]), (mine[2], theirs[2]), (mine[3], theirs[3])):
        if tensor is not None and like is not None:
            torch.testing.assert_close(tensor.grad, like.grad, rtol=1e-4, atol=1e-5)


def test_products_in_bfloat16_are_near_and_gradients_keep_the_weights_type() -> None:
    hidden, targets, weight, bias = inputs()
    found = chosen_stats(hidden, targets, weight, bias, dtype=torch.bfloat16, chunk_tokens=5)
    wanted = plain(*inputs())
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.1)
    torch.autograd.backward(weighted(*found, of="logprobs entropies"))
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.grad.any()


def test_frozen_weights_get_no_gradient() -> None:
    hidden, targets, weight, bias = inputs()
    assert bias is not None
    weight.requires_grad_(False)
    bias.requires_grad_(False)
    logprobs, _ = chosen_stats(hidden, targets, weight, bias, dtype=torch.float32, chunk_tokens=5)
    torch.autograd.backward(logprobs.sum())
    assert hidden.grad is not None
    assert weight.grad is None
    assert bias.grad is None


def test_no_token_has_a_gradient_of_zeros() -> None:
    """Every process of a sharded run takes the same passes, one that has nothing to look at too."""
    hidden, targets, weight, _ = inputs()
    logprobs, entropies = chosen_stats(hidden[:0], targets[:0], weight, None, dtype=torch.float32, chunk_tokens=5)
    torch.autograd.backward(logprobs.sum() + entropies.sum())
    assert weight.grad is not None
    assert not weight.grad.any()


def test_a_weights_gradient_of_many_chunks_is_as_exact_as_that_of_one() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.rand(2048, 8), torch.randn(16, 8).bfloat16().requires_grad_()
    targets = torch.zeros(2048, dtype=torch.int64)

    def gradient(chunk_tokens: int) -> torch.Tensor:
        logprobs, _ = chosen_stats(hidden, targets, weight, None, dtype=torch.bfloat16, chunk_tokens=chunk_tokens)
        [found] = torch.autograd.grad(logprobs.sum(), weight)
        return found.float()

    whole, parts = gradient(2048), gradient(8)
    assert (parts - whole).norm() / whole.norm() < 0.004
