"""Likelihoods of counts against their closed forms in high precision, and at extreme outputs of a network."""

from __future__ import annotations

import pyro
import pytest
import torch
from conftest import both_dtypes, in_float64
from mpmath import mp, mpf
from torch import Tensor, nn
from torch.nn.functional import softplus

import pyro_dgm as dgm

MAKERS = {
    "binomial": (lambda net: dgm.Binomial(net, 1000), 1),
    "poisson": (dgm.Poisson, 1),
    "negative_binomial": (dgm.NegativeBinomial, 2),
    "zero_inflated_poisson": (dgm.ZeroInflatedPoisson, 2),
    "zero_inflated_negative_binomial": (dgm.ZeroInflatedNegativeBinomial, 3),
}
makers = pytest.mark.parametrize(("make", "num_params"), list(MAKERS.values()), ids=list(MAKERS))


def poisson(y: int, rate: float):
    return mp.exp(-mpf(rate)) * mpf(rate) ** y / mp.factorial(y)


def negative_binomial(y: int, r: float, logit: float):
    p = 1 / (1 + mp.exp(-mpf(logit)))
    return mp.gamma(y + mpf(r)) / mp.factorial(y) / mp.gamma(mpf(r)) * (1 - p) ** mpf(r) * p**y


def inflated(y: int, gate_logit: float, mass):
    gate = 1 / (1 + mp.exp(-mpf(gate_logit)))
    return gate * (y == 0) + (1 - gate) * mass


def exact_mass(name: str, y: int, raw: list[float]):
    r"""P(y) from the network's outputs, where softplus(r) + 10⁻⁶ makes a rate or a number of failures."""
    positive = float(softplus(torch.tensor(raw[0], dtype=torch.float64))) + 1e-6
    if name == "binomial":
        p = 1 / (1 + mp.exp(-mpf(raw[0])))
        return mp.binomial(1000, y) * p**y * (1 - p) ** (1000 - y)
    mass = (
        poisson(y, positive) if name.endswith("poisson") else negative_binomial(y, positive, raw[1])
    )
    return inflated(y, raw[-1], mass) if name.startswith("zero") else mass


@in_float64
@pytest.mark.parametrize("name", list(MAKERS))
def test_log_masses_are_the_closed_forms(name):
    make, num_params = MAKERS[name]
    law = make(nn.Identity())
    for raw in 3 * torch.randn(6, num_params):
        for y in (0, 1, 2, 7, 40):
            with mp.workdps(40):
                exact = float(mp.log(exact_mass(name, y, raw.tolist())))
            torch.testing.assert_close(
                law(raw).log_prob(torch.tensor([float(y)])), torch.tensor(exact), rtol=1e-9, atol=0
            )


@both_dtypes
@makers
def test_extreme_outputs_of_a_network_give_finite_masses_and_gradients(make, num_params, dtype):
    raw = torch.cartesian_prod(*[torch.tensor([-100.0, -20.0, 0.0, 20.0, 100.0])] * num_params)
    raw = raw.reshape(-1, num_params).requires_grad_()
    for y in (0.0, 1.0, 12.0, 1000.0):
        with pyro.validation_enabled(
            False
        ):  # Pyro refuses the probability 1 of a logit of 100 in a zero-inflated law
            log_p = make(nn.Identity())(raw).log_prob(torch.full((len(raw), 1), y))
        assert log_p.dtype == dtype
        assert bool(log_p.isfinite().all())
        (gradient,) = torch.autograd.grad(log_p.sum(), raw)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(("make", "num_params"), [case for case in MAKERS.values() if case[1] > 1])
def test_a_network_with_another_number_of_outputs_is_refused_with_the_fix(make, num_params):
    with pytest.raises(
        ValueError,
        match=rf"expected a network output \(\*batch, {num_params} \* D\).*Fix: end the net",
    ):
        make(nn.Linear(3, 7))(torch.zeros(2, 3))


def test_a_binomial_may_have_another_number_of_trials_in_every_dim():
    trials = torch.tensor([1, 5, 1000])
    law = dgm.Binomial(nn.Identity(), trials)(torch.zeros(2, 3))
    torch.testing.assert_close(law.mean, (trials / 2).expand(2, 3).to(law.mean))
    assert bool(law.support.check(law.sample((10,))).all())


def test_a_count_above_the_number_of_trials_is_refused():
    law = dgm.Binomial(nn.Identity(), 4)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.full((2, 3), 5.0))


@in_float64
def test_the_variance_of_a_negative_binomial_exceeds_its_mean():
    """Mean and variance of 200,000 draws; 5 standard errors of a mean allowed."""
    raw = torch.tensor([[1.0, 0.3]])
    law, r = dgm.NegativeBinomial(nn.Identity())(raw), softplus(torch.tensor(1.0)) + 1e-6
    mean = r * torch.tensor(0.3).exp()
    torch.testing.assert_close(law.mean.squeeze(), mean)
    torch.testing.assert_close(law.variance.squeeze(), mean + mean**2 / r)
    draws = law.sample((200_000,)).squeeze()
    squares = (draws - mean).square()
    assert abs(float(draws.mean() - mean)) < 5 * float(draws.std()) / 200_000**0.5
    assert (
        abs(float(squares.mean() - law.variance.squeeze()))
        < 5 * float(squares.std()) / 200_000**0.5
    )


def zeros(law, num: int = 20_000) -> Tensor:
    return (law.sample((num,)) == 0).to(torch.float64).mean((0, 1))


@pytest.mark.parametrize("gate", [-3.0, 0.0, 3.0])
def test_a_gate_adds_zeros(gate):
    """Share of zeros in 20,000 draws: standard error sqrt(p (1 - p) / n), 5 allowed."""
    law = dgm.ZeroInflatedPoisson(nn.Identity())(torch.tensor([[2.0, gate]]))
    g, rate = (
        torch.tensor(gate, dtype=torch.float64).sigmoid(),
        softplus(torch.tensor(2.0, dtype=torch.float64)),
    )
    p = g + (1 - g) * (-rate).exp()
    assert abs(float(zeros(law) - p)) < 5 * float((p * (1 - p) / 20_000).sqrt())
