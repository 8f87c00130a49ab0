import arviz
import numpy as np
import pytest
import torch
from toys import ExactGuide, LinearGaussian, heavy

import pyro_dgm as dgm
from pyro_dgm.evaluation.likelihood.pareto import LEAST_DRAWS, LEAST_TAIL, tail_length

LEGACY = arviz.__version__.startswith("0.")
# ArviZ 1.x rounds the length of the tail down, and not up as the paper does: it agrees where there is nothing to round.
NUMS = [25, 100, 1000, 3001] if LEGACY else [100, 400, 2500]


def khat_of_arviz(log_w):
    """ArviZ fits along the last axis: 0.23 to log weights, log p - log q, and 1.x to their negatives."""
    log_w = log_w.T.numpy().copy()
    if LEGACY:
        return arviz.psislw(log_w)[1]
    from arviz_stats.base import array_stats

    return array_stats.psislw(-log_w)[1]


@pytest.mark.parametrize("num", NUMS)
def test_khat_equals_arviz(num):
    log_w = heavy(num, 12)
    expected = khat_of_arviz(log_w)
    np.testing.assert_allclose(dgm.khat(log_w).numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.skipif(not LEGACY, reason="ArviZ 1.x has another tail of 1,000 weights")
@pytest.mark.parametrize("step", [0.002, 0.05, 0.4])
def test_khat_equals_arviz_where_weights_tie_at_the_edge_of_the_tail(step):
    """Weights on a grid, as those of large float32 densities and of discrete latents are: ties shorten the tail."""
    log_w = (heavy(1000, 12) / step).round() * step
    edge = log_w.topk(96, dim=0).values[-2:]
    assert (edge[0] == edge[1]).any()
    expected = khat_of_arviz(log_w)
    np.testing.assert_allclose(dgm.khat(log_w).numpy(), expected, rtol=0, atol=1e-8)


def test_a_tail_of_fewer_than_five_weights_has_no_khat():
    log_w = torch.zeros(1000, 2)
    log_w[:4] = torch.rand(4, 2) + 0.1
    log_w[4, 1] = 0.05
    assert dgm.khat(log_w)[0] == torch.inf
    assert dgm.khat(log_w)[1] < torch.inf


def test_weights_that_are_all_zero_are_infinitely_bad():
    """Draws outside the model's support: no datum may pass for reliable."""
    assert (dgm.khat(torch.full((1000, 3), -torch.inf)) == torch.inf).all()


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_khat_of_float32_weights_is_that_of_the_same_numbers_in_float64(dtype):
    log_w = heavy(1000, 12).to(dtype) - 5000
    assert torch.equal(dgm.khat(log_w), dgm.khat(log_w.double()))


def test_khat_has_the_sign_of_log_weights_not_of_log_likelihoods():
    """Defect 25: two versions of ArviZ disagree about the sign. Weights with a heavy right tail are the bad ones."""
    log_w = torch.distributions.Exponential(1.0).sample((2000, 1)) * 2  # Pareto weights of shape 2
    assert dgm.khat(log_w) > 1
    assert dgm.khat(-log_w) < 0.5


@pytest.mark.parametrize("shape", [0.3, 0.7, 1.2])
def test_khat_is_the_shape_of_pareto_weights(shape):
    """Mean over 200 sets of 4,000 draws; the fit has a prior at 0.5 worth 10 of its 190 tail draws."""
    log_w = shape * torch.distributions.Exponential(1.0).sample((4000, 200))
    found, num_tail = dgm.khat(log_w), 190
    bias = abs(shape - 0.5) * 10 / (num_tail + 10)
    assert (found.mean() - shape).abs() < bias + 5 * found.std() / 200**0.5 + 0.01


def test_khat_is_per_datum():
    log_w = heavy(500, 4)
    alone = torch.cat([dgm.khat(log_w[:, i : i + 1]) for i in range(12)])
    torch.testing.assert_close(dgm.khat(log_w), alone)


def test_khat_ignores_a_constant():
    log_w = heavy(500, 4)
    torch.testing.assert_close(dgm.khat(log_w + 1e4), dgm.khat(log_w), rtol=0, atol=1e-6)


def test_khat_is_float64_whatever_the_weights():
    assert dgm.khat(heavy(500, 4).float()).dtype == torch.float64


@pytest.mark.parametrize("transposed", [False, True])
def test_khat_leaves_the_weights_alone(transposed):
    log_w = heavy(500, 4)
    log_w = log_w.T.contiguous().T if transposed else log_w
    before = log_w.clone()
    for part in (log_w, log_w[:, :1]):
        dgm.khat(part)
        assert torch.equal(log_w, before)


@pytest.mark.cuda
def test_khat_on_a_device_is_that_on_the_cpu():
    log_w = heavy(500, 4)
    torch.testing.assert_close(dgm.khat(log_w.cuda()).cpu(), dgm.khat(log_w), rtol=0, atol=1e-10)


def test_many_data_are_fitted_as_few():
    """More data than one block holds."""
    log_w = heavy(60, 3000)
    torch.testing.assert_close(dgm.khat(log_w)[-5:], dgm.khat(log_w[:, -5:]), rtol=0, atol=1e-12)


def test_weights_with_a_gradient_have_a_khat_without():
    assert not dgm.khat(heavy(500, 4).requires_grad_()).requires_grad


def test_khat_of_an_exact_guide_is_minus_infinity():
    model = LinearGaussian().double()
    x = model.data(6)
    assert (dgm.nll(model, ExactGuide(model), x, num=400).khat == -torch.inf).all()


def test_khat_of_a_guide_that_is_too_narrow_is_large_and_of_a_wide_one_small():
    model = LinearGaussian(latent=4)
    x = model.data(6)
    narrow = dgm.nll(model, ExactGuide(model, spread=0.3), x, num=2000).khat
    wide = dgm.nll(model, ExactGuide(model, spread=1.2), x, num=2000).khat
    assert narrow.median() > 0.7 > wide.max()


@pytest.mark.parametrize("num", [1, 2, 10, 20])
def test_too_few_draws_have_no_khat(num):
    assert (dgm.khat(torch.randn(num, 3)) == torch.inf).all()


def test_the_least_number_of_draws_has_a_tail_to_fit():
    assert tail_length(LEAST_DRAWS - 1) < LEAST_TAIL == tail_length(LEAST_DRAWS)
    assert dgm.khat(torch.randn(LEAST_DRAWS, 3)).isfinite().all()


def test_weights_that_spread_over_thousands_of_nats_are_infinitely_bad():
    assert not (dgm.khat(torch.linspace(-5e5, 0, 1000)[:, None]) < 1).any()


@pytest.mark.parametrize(
    ("num", "expected"),
    [(1, 0.0), (5, 0.0), (10, 0.0), (100, 0.5), (1000, 1 - 1 / 3), (10_000, 0.7), (10**6, 0.7)],
)
def test_the_threshold_follows_its_formula(num, expected):
    assert dgm.diagnostics.khat_threshold(num) == pytest.approx(expected)
