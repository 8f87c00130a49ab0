"""The one gradient ascent of the package, against a maximum in closed form."""

from __future__ import annotations

import torch
from conftest import in_float64

from pyro_dgm.densities.ascent import ascend


@in_float64
def test_it_finds_the_maximum_of_every_row_by_itself():
    """Rows whose terms differ by a factor of 1,000 take the same path: Adam is free of scale."""
    target, weight = torch.randn(5, 2), torch.tensor([1.0, 10.0, 100.0, 1000.0, 1.0])[:, None]
    theta = torch.zeros(5, 2, requires_grad=True)
    ascend(lambda: -(weight * (theta - target).square()).sum(), [theta], num_steps=400, lr=0.05)
    torch.testing.assert_close(theta.detach(), target, atol=1e-3, rtol=0)
    alone = torch.zeros(1, 2, requires_grad=True)
    ascend(lambda: -(alone - target[:1]).square().sum(), [alone], num_steps=400, lr=0.05)
    torch.testing.assert_close(alone, theta[:1])


def test_the_first_step_has_the_length_of_the_learning_rate_and_the_last_is_shorter():
    theta = torch.zeros(1, requires_grad=True)
    seen = []

    def objective():
        seen.append(theta.item())
        return theta.sum()

    ascend(objective, [theta], num_steps=4, lr=0.1)
    lengths = torch.tensor([*seen, theta.item()]).diff()
    cosine = 0.05 * (1 + torch.cos(torch.arange(4) * torch.pi / 4))
    torch.testing.assert_close(lengths, cosine.to(lengths.dtype), atol=1e-5, rtol=1e-3)


def test_it_runs_under_no_grad_and_leaves_weights_without_gradients():
    weight, theta = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    unused = torch.zeros(1, requires_grad=True)
    with torch.no_grad():
        ascend(lambda: (weight * theta).sum(), [theta, unused], num_steps=3, lr=0.1)
    assert theta > 0
    assert unused == 0
    assert weight.grad is None
