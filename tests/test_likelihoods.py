"""Likelihood makers: what each one knows beyond the laws."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

import pyro_dgm as dgm


@pytest.mark.parametrize("event", [(6,), (2, 3, 4)], ids=str)
def test_bernoulli_is_the_binary_cross_entropy_summed_over_the_event(event):
    logits, x = 5 * torch.randn(3, *event), torch.randint(2, (3, *event)).to(torch.get_default_dtype())
    law = dgm.Bernoulli(nn.Identity(), event_dim=len(event))(logits)
    entropy = binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), -entropy)
    torch.testing.assert_close(law.mean, logits.sigmoid())


@both_dtypes
def test_bernoulli_scores_extreme_logits_with_finite_gradients(dtype):
    logits = torch.tensor([[-1e4, 1e4, -90.0, 90.0]], requires_grad=True)
    log_p = dgm.Bernoulli(nn.Identity())(logits).log_prob(torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    torch.testing.assert_close(log_p, torch.tensor([-2e4 - 180]))
    (gradient,) = torch.autograd.grad(log_p.sum(), logits)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, -1.0, 1.0, -1.0]]))


def test_categorical_reads_the_logits_of_one_dim_side_by_side():
    raw, x = torch.randn(7, 3 * 5), torch.randint(5, (7, 3))
    law = dgm.Categorical(nn.Identity(), levels=5)(raw)
    expected = -cross_entropy(raw.reshape(21, 5), x.reshape(21), reduction="none").reshape(7, 3).sum(1)
    torch.testing.assert_close(law.log_prob(x), expected)
    torch.testing.assert_close(law.log_prob(x.to(raw.dtype)), expected)


def test_categorical_refuses_a_network_with_another_number_of_outputs():
    with pytest.raises(ValueError, match=r"Categorical: expected .* levels=4, got \(2, 9\)\. Fix: .*D \* 4\)"):
        dgm.Categorical(nn.Linear(3, 9), levels=4)(torch.zeros(2, 3))


@both_dtypes
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0, 1e3])
def test_normal_starts_at_the_scale_that_was_asked_for(scale, dtype):
    law = dgm.Normal(nn.Identity(), scale=scale)(torch.zeros(2, 3))
    torch.testing.assert_close(law.base_dist.scale, torch.full((2, 3), scale), rtol=2e-3, atol=0)


def test_normal_learns_the_scale_of_the_data():
    """The maximum-likelihood σ is the root mean square; 400 steps of Adam reach it to 1 %."""
    x = 0.3 * torch.randn(500, 4)
    likelihood = dgm.Normal(nn.Identity())
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(500, 4)).log_prob(x).mean()).backward()
        optimizer.step()
    exact = x.square().mean().sqrt()
    torch.testing.assert_close(likelihood(x).base_dist.scale[0, 0].detach(), exact, rtol=1e-2, atol=0)


def test_normal_is_the_normal_density_over_the_event():
    loc, x = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    law = dgm.Normal(nn.Identity(), scale=0.5, event_dim=3)(loc)
    expected = dist.Normal(loc, 0.5 + 1e-6).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), expected)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_normal_refuses_a_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=rf"Normal: expected scale > 0, got {scale}"):
        dgm.Normal(nn.Identity(), scale=scale)


def test_discretized_logistic_reads_locations_first_and_log_scales_in_level_units():
    raw, x = torch.tensor([[3.0, 7.0, -0.4, 0.9]]), torch.tensor([[2.0, 9.0]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=12)(raw)
    cdf = lambda y, loc, log_scale: torch.sigmoid((y - loc) / log_scale.exp())  # noqa: E731
    loc, log_scale = raw.chunk(2, -1)
    exact = (cdf(x + 0.5, loc, log_scale) - cdf(x - 0.5, loc, log_scale)).log().sum(-1)
    torch.testing.assert_close(law.log_prob(x), exact)


def test_the_edge_levels_of_discretized_logistic_take_the_tails():
    """Other libraries leave them out, and their masses sum to 1.00 down to 0.23."""
    raw = torch.tensor([[-6.0, 1.5]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=16)(raw)
    scale = raw[0, 1].exp()
    torch.testing.assert_close(law.log_prob(torch.tensor([[0.0]]))[0], logsigmoid((0.5 + 6) / scale))
    torch.testing.assert_close(law.log_prob(torch.tensor([[15.0]]))[0], logsigmoid(-(14.5 + 6) / scale))
    masses = law.log_prob(torch.arange(16.0)[:, None]).exp()
    torch.testing.assert_close(masses.sum(), torch.ones(()))


def test_discretized_logistic_refuses_an_odd_number_of_outputs():
    with pytest.raises(ValueError, match=r"DiscretizedLogistic: expected .*\(\*batch, 2 \* D\).*got \(2, 9\)\. Fix:"):
        dgm.DiscretizedLogistic(nn.Linear(3, 9), levels=4)(torch.zeros(2, 3))


def test_min_scale_is_added_to_the_scale_of_the_network():
    raw = torch.tensor([[1.5, 2.5, -3.0, 0.7]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=5, min_scale=0.3)(raw)
    expected = dgm.Discretized(dist.Logistic(raw[:, :2], 0.3 + raw[:, 2:].exp()), 5).to_event(1)
    x = torch.tensor([[4.0, 0.0]])
    torch.testing.assert_close(law.log_prob(x), expected.log_prob(x))


def test_min_scale_bounds_the_cost_of_a_level_never_seen():
    """Far beyond the location the mass falls by exp(-1 / min_scale) per level, and by no more."""
    raw = torch.tensor([[-1.0, -1e4]])
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=17, min_scale=0.5)(raw)
    costs = -torch.stack([law.log_prob(torch.tensor([[float(y)]])) for y in range(4, 16)]).squeeze()
    torch.testing.assert_close(costs.diff(), torch.full((11,), 2.0), rtol=1e-4, atol=0)


@both_dtypes
def test_log_scales_are_clamped_where_they_become_scales(dtype):
    raw = torch.tensor([[1.5, -40.0], [1.5, 40.0], [1.5, -12.0], [1.5, 12.0]], requires_grad=True)
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=5)(raw)
    torch.testing.assert_close(law.base_dist.base.scale[:2], law.base_dist.base.scale[2:], rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(law.log_prob(torch.arange(4.0)[:, None]).sum(), raw)
    assert bool(gradient.isfinite().all())


def test_a_negative_min_scale_is_refused():
    with pytest.raises(ValueError, match=r"expected min_scale >= 0, got -1\.0"):
        dgm.DiscretizedLogistic(nn.Identity(), levels=5, min_scale=-1.0)


def test_image_likelihoods_split_the_channels_and_keep_height_and_width():
    raw = torch.randn(5, 2 * 3, 4, 6)
    law = dgm.DiscretizedLogistic(nn.Identity(), levels=7, event_dim=3)(raw)
    x = torch.randint(7, (5, 3, 4, 6)).to(raw.dtype)
    expected = dgm.Discretized(dist.Logistic(raw[:, :3], raw[:, 3:].exp()), 7).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), expected)
    assert law.event_shape == (3, 4, 6)


def test_an_image_of_categories_has_its_logits_side_by_side_in_the_channels():
    raw = torch.randn(5, 3 * 7, 4, 6)
    law = dgm.Categorical(nn.Identity(), levels=7, event_dim=3)(raw)
    x = torch.randint(7, (5, 3, 4, 6))
    log_p = raw.reshape(5, 3, 7, 4, 6).log_softmax(2).gather(2, x[:, :, None]).flatten(1).sum(1)
    torch.testing.assert_close(law.log_prob(x), log_p)
    assert law.event_shape == (3, 4, 6)
