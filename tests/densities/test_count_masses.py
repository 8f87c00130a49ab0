"""Masses of counts and their gradients against closed forms in sixty digits, for means and dispersions to 1e8."""

from __future__ import annotations

import pytest
import torch
from conftest import both_dtypes
from mpmath import mp, mpf

from pyro_dgm.densities import counts

RTOL = {torch.float32: 3e-7, torch.float64: 1e-12}
GRADIENT_RTOL = {torch.float32: 1e-6, torch.float64: 1e-6}
SPREADS = (-5, -1, 0, 1, 5)  # of a count from its mean, in standard deviations


@pytest.fixture(autouse=True)
def many_digits():
    with mp.workdps(60):
        yield


def exact(tensor):
    return mpf(tensor.item())


def log_factorial(x):
    return mp.loggamma(x + 1)


def binomial(x, n, p):
    log_choices = log_factorial(n) - log_factorial(x) - log_factorial(n - x)
    return log_choices + x * mp.log(p) + (n - x) * mp.log(1 - p)


def negative_binomial(x, r, p):
    log_choices = mp.loggamma(x + r) - log_factorial(x) - mp.loggamma(r)
    return log_choices + r * mp.log(1 - p) + x * mp.log(p)


def sigmoid(logit):
    return 1 / (1 + mp.exp(-logit))


def counts_around(mean, variance, most=10**12):
    found = {0}
    for spread in SPREADS:
        found.add(min(most, max(0, round(mean + spread * variance**0.5))))
    return sorted(found)


def require_close(value, truth, rtol, natural=0.0):
    """Equal to `rtol`; where a gradient cancels to next to nothing, to `rtol` of its natural size."""
    assert abs(exact(value) - truth) <= rtol * max(abs(truth), mpf(natural)), (value.item(), truth)


@both_dtypes
@pytest.mark.parametrize("rate", [1e-3, 0.5, 3.0, 15.9, 16.1, 100.0, 1e4, 1e6, 1e8])
def test_poisson_masses_and_gradients_are_exact(rate, dtype):
    rate = torch.tensor(rate, requires_grad=True)
    mean = exact(rate)
    for x in counts_around(float(mean), float(mean)):
        log_p = counts.Poisson(rate).log_prob(torch.tensor(x))
        (slope,) = torch.autograd.grad(log_p, rate)
        assert log_p.dtype == slope.dtype == dtype
        require_close(log_p, x * mp.log(mean) - mean - log_factorial(x), RTOL[dtype])
        require_close(slope, x / mean - 1, GRADIENT_RTOL[dtype], natural=1e-9)


@both_dtypes
@pytest.mark.parametrize("n", [1, 5, 40, 1000, 10**5, 10**8])
@pytest.mark.parametrize("p", [1e-6, 1e-3, 0.2, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("by", ["probs", "logits"])
def test_binomial_masses_and_gradients_are_exact(n, p, by, dtype):
    number = torch.tensor(p, dtype=torch.float64)
    number = (number.logit() if by == "logits" else number).to(dtype).requires_grad_()
    given = exact(number)
    p = sigmoid(given) if by == "logits" else given
    for x in {*counts_around(n * float(p), n * float(p * (1 - p)), most=n), n}:
        law = counts.Binomial(n, **{by: number}, validate_args=False)
        log_p = law.log_prob(torch.tensor(x))
        (slope,) = torch.autograd.grad(log_p, number)
        require_close(log_p, binomial(mpf(x), mpf(n), p), RTOL[dtype])
        score = x - n * p
        scale = 1 if by == "logits" else 1 / (p * (1 - p))
        require_close(slope, score * scale, GRADIENT_RTOL[dtype], natural=1e-8 * n * p * scale)


@both_dtypes
@pytest.mark.parametrize("r", [1e-6, 1e-3, 0.3, 5.0, 100.0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("mean", [1e-3, 1.0, 10.0, 1e3, 1e6, 1e8])
def test_negative_binomial_masses_and_gradients_are_exact(r, mean, dtype):
    size = torch.tensor(r, requires_grad=True)
    logit = torch.tensor(mean / r, dtype=torch.float64).log().to(dtype).requires_grad_()
    r, p = exact(size), sigmoid(exact(logit))
    for x in counts_around(mean, mean + mean**2 / float(r)):
        law = counts.NegativeBinomial(size, logits=logit, validate_args=False)
        log_p = law.log_prob(torch.tensor(x))
        slope_r, slope_logit = torch.autograd.grad(log_p, (size, logit))
        require_close(log_p, negative_binomial(mpf(x), r, p), RTOL[dtype])
        score_r = mp.psi(0, x + r) - mp.psi(0, r) + mp.log(1 - p)
        require_close(slope_r, score_r, GRADIENT_RTOL[dtype])
        natural = 1e-8 * x * (1 - p)
        require_close(slope_logit, x * (1 - p) - r * p, GRADIENT_RTOL[dtype], natural)


@both_dtypes
@pytest.mark.parametrize("rate", [1e-3, 3.0, 1e4, 1e8])
@pytest.mark.parametrize("gate_logit", [-90.0, -1.0, 2.0, 90.0])
def test_zero_inflated_masses_are_exact(rate, gate_logit, dtype):
    rate, gate_logits = torch.tensor(rate), torch.tensor(gate_logit)
    mean, gate = exact(rate), sigmoid(exact(gate_logits))
    for x in counts_around(float(mean), float(mean)):
        mass = mp.exp(x * mp.log(mean) - mean - log_factorial(x))
        law = counts.ZeroInflatedPoisson(rate, gate_logits=gate_logits)
        truth = mp.log(gate * (x == 0) + (1 - gate) * mass)
        require_close(law.log_prob(torch.tensor(x)), truth, RTOL[dtype], natural=1e-38)


@both_dtypes
def test_impossible_counts_have_no_mass_and_certain_ones_all_of_it(dtype):
    zero, two = torch.tensor(0.0), torch.tensor(2.0)
    options = {"validate_args": False}
    assert counts.Poisson(zero, **options).log_prob(zero) == 0
    assert counts.Poisson(zero, **options).log_prob(two) == -torch.inf
    assert counts.Poisson(two, **options).log_prob(torch.tensor(-1)) == -torch.inf
    assert counts.Binomial(2, probs=zero, **options).log_prob(zero) == 0
    assert counts.Binomial(2, probs=zero, **options).log_prob(two) == -torch.inf
    assert counts.Binomial(2, probs=torch.tensor(1.0), **options).log_prob(two) == 0
    assert (
        counts.Binomial(2, probs=torch.tensor(0.5), **options).log_prob(torch.tensor(3))
        == -torch.inf
    )
    assert counts.Binomial(0, probs=torch.tensor(0.5), **options).log_prob(zero) == 0


@both_dtypes
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_probabilities_have_finite_gradients_where_the_mass_is_one(p, dtype):
    p = torch.tensor(p, requires_grad=True)
    x = (2 * p).detach()
    (slope,) = torch.autograd.grad(counts.Binomial(2, probs=p).log_prob(x), p)
    assert slope.isfinite()


@both_dtypes
def test_all_masses_sum_to_one(dtype):
    x = torch.arange(400)[:, None]
    rates = torch.tensor([0.1, 5.0, 60.0, 200.0])
    laws = [
        counts.Poisson(rates),
        counts.Binomial(399, logits=torch.tensor([-9.0, -1.0, 0.0, 30.0]), validate_args=False),
        counts.NegativeBinomial(rates, logits=torch.tensor([-1.0])),
        counts.ZeroInflatedPoisson(rates, gate_logits=torch.tensor([0.3])),
        counts.ZeroInflatedNegativeBinomial(
            rates, logits=torch.tensor([-2.0]), gate_logits=torch.tensor([0.3])
        ),
    ]
    for law in laws:
        total = law.log_prob(x).double().exp().sum(0)
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=0)


def test_expanded_laws_keep_their_digits():
    law = counts.Poisson(torch.tensor(1e7)).expand([3]).to_event(1)
    assert isinstance(law.base_dist, counts.Poisson)
    log_p = law.log_prob(torch.full((3,), 10_000_000))
    torch.testing.assert_close(
        log_p / 3, counts.Poisson(torch.tensor(1e7)).log_prob(torch.tensor(1e7))
    )
