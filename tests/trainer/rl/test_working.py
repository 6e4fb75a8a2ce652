"""Working copies: what a module computes with them, where the gradients go, and when they follow."""

import pytest
import torch
from torch import nn

from searchr1.trainer.rl.working import WorkingCopy


class Net(nn.Module):
    """Two layers with one weight, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(x.to(self.first.weight.dtype)))
        self.seen = [self.first.weight.dtype, hidden.dtype, self.head.weight.dtype]
        out: torch.Tensor = self.head(hidden.to(self.head.weight.dtype))
        return out


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def test_passes_are_in_bfloat16_and_all_else_is_as_it_was() -> None:
    net = Net()
    weights = dict(net.named_parameters())
    copy = WorkingCopy(net, exact=[net.head])
    with copy.in_use():
        out = net(X)
        assert net.seen == [torch.bfloat16, torch.bfloat16, torch.float32]
        assert net.second.weight is net.first.weight
    assert dict(net.named_parameters()) == weights
    torch.testing.assert_close(out, net(X), rtol=0.05, atol=0.05)
    assert net.seen == [torch.float32] * 3


def test_gradients_add_up_in_float32() -> None:
    net, halved = Net(), Net().to(torch.bfloat16)
    copy = WorkingCopy(net)
    with copy.in_use():
        for scale in (1.0, 0.001):
            torch.autograd.backward((net(X) * scale).sum())
    wanted: dict[str, torch.Tensor] = {}
    for scale in (1.0, 0.001):
        torch.autograd.backward((halved(X) * scale).sum())
        for name, weight in halved.named_parameters():
            assert weight.grad is not None
            wanted[name] = wanted.get(name, torch.zeros(())) + weight.grad.float()
            weight.grad = None
    for name, weight in net.named_parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert torch.equal(weight.grad, wanted[name]), name


def test_the_copies_follow_an_optimizer_and_a_state_that_is_put_back() -> None:
    net = Net()
    copy, optimizer = WorkingCopy(net), torch.optim.AdamW(net.parameters(), lr=0.1)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with copy.in_use():
        before = net(X)
        torch.autograd.backward(before.sum())
    optimizer.step()
    with copy.in_use():
        assert not torch.allclose(net(X), before, atol=0.01)
    net.load_state_dict(state)
    with copy.in_use():
        assert torch.equal(net(X), before)


def test_what_is_frozen_stays_so() -> None:
    net = Net()
    net.first.requires_grad_(False)
    with WorkingCopy(net).in_use():
        torch.autograd.backward(net(X).sum())
    assert net.first.weight.grad is None
    assert net.head.weight.grad is not None


def test_a_failure_within_leaves_the_module_its_own_weights() -> None:
    net = Net()
    weights = dict(net.named_parameters())

    def fail() -> None:
        with WorkingCopy(net).in_use():
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert all(net.get_parameter(name) is weight for name, weight in weights.items())
