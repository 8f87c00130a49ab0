import arviz
import numpy as np
import pytest
import torch
from toys import ExactGuide, LinearGaussian, heavy

import pyro_dgm as dgm
from pyro_dgm.evaluation.likelihood.smoothing import resampled_indices, smooth_weights
from pyro_dgm.inference.process.states import fork_rng

LEGACY = arviz.__version__.startswith("0.")
# ArviZ 1.x rounds the length of the tail down, and not up as the paper does: it agrees where there is nothing to round.
# It fits no tail of five, and refuses weights of zero.
NUMS = [10, 25, 100, 1000, 3001] if LEGACY else [100, 400, 2500]


def of_arviz(log_w):
    """ArviZ smooths along the last axis: 0.23 log weights, log p - log q, and 1.x their negatives."""
    log_w = log_w.double().T.numpy().copy()
    if LEGACY:
        return arviz.psislw(log_w)[0].T
    from arviz_stats.base import array_stats

    return array_stats.psislw(-log_w)[0].T


@pytest.mark.parametrize("num", NUMS)
def test_smoothed_weights_equal_arviz(num):
    log_w = heavy(num, 12)
    np.testing.assert_allclose(smooth_weights(log_w).numpy(), of_arviz(log_w), rtol=0, atol=1e-8)


@pytest.mark.skipif(not LEGACY, reason="ArviZ 1.x has another tail of 1,000 weights")
def test_weights_that_tie_at_the_edge_of_the_tail_equal_arviz():
    """The 60 largest of 1,000 weights are a tail of 94 with the edge at a value that 500 weights share."""
    log_w = torch.cat([-1 + torch.zeros(500), torch.randn(440) - 9, 3 * torch.rand(60)])[:, None]
    np.testing.assert_allclose(smooth_weights(log_w).numpy(), of_arviz(log_w), rtol=0, atol=1e-8)
    assert not torch.allclose(smooth_weights(log_w), log_w.double().log_softmax(0))


def test_weights_of_few_values_stay_as_they_are():
    log_w = torch.tensor([0.0, -1.0, -3.0])[torch.randint(3, (1000, 4))]
    torch.testing.assert_close(smooth_weights(log_w), log_w.double().log_softmax(0))


def test_constant_weights_are_even():
    np.testing.assert_allclose(
        smooth_weights(torch.full((400, 2), -90.0)).exp(), 1 / 400, rtol=1e-12
    )


def test_draws_of_probability_zero_keep_it():
    log_w = torch.cat([torch.full((700, 1), -torch.inf), torch.randn(300, 1)])
    assert (smooth_weights(log_w)[:700] == -torch.inf).all()
    if LEGACY:
        np.testing.assert_allclose(
            smooth_weights(log_w).numpy(), of_arviz(log_w), rtol=0, atol=1e-8
        )


def test_smoothing_leaves_the_weights_alone_and_is_per_datum():
    log_w = heavy(500, 4)
    before = log_w.clone()
    alone = torch.cat([smooth_weights(log_w[:, i : i + 1]) for i in range(12)], 1)
    torch.testing.assert_close(smooth_weights(log_w), alone)
    assert torch.equal(log_w, before)


def test_resampling_takes_draws_as_often_as_their_weight():
    """Weights 1 : 2 : 5 over 12,000 draws; counts are multinomial."""
    log_w = torch.tensor([1.0, 2.0, 5.0]).log().repeat(4000)[:, None]
    taken = (resampled_indices(log_w) % 3).flatten()
    share = torch.bincount(taken) / len(taken)
    p = torch.tensor([1.0, 2.0, 5.0]) / 8
    assert ((share - p).abs() < 5 * (p * (1 - p) / len(taken)).sqrt()).all()


def test_resampled_draws_of_a_wrong_guide_have_the_moments_of_the_exact_posterior():
    """A guide moved by 0.3 and 1.3 times as wide; moments against p(z | x), error bars from the importance ESS."""
    model = LinearGaussian()
    guide, exact, x = ExactGuide(model, shift=0.3, spread=1.3), ExactGuide(model), model.data(6)
    with torch.no_grad(), fork_rng(seed=1):
        particles = dgm.draw(model, guide, x, num=20_000)
        index = resampled_indices(particles.log_weight)
    z = particles.values["z"].gather(0, index[..., None].expand(-1, -1, 2))
    ess = 1 / (1 / dgm.nll(model, guide, x, num=20_000).ess.min() + 1 / 20_000)
    mean, covariance = ((x - exact.bias) @ exact.map.T).detach(), exact.root @ exact.root.T
    deviation = covariance.diagonal().sqrt()
    assert ((particles.values["z"].mean(0) - mean).abs() > 0.25).all()
    assert ((z.mean(0) - mean).abs() < 5 * deviation / ess**0.5).all()
    assert ((z.std(0) / deviation - 1).abs() < 5 / (2 * ess) ** 0.5).all()
