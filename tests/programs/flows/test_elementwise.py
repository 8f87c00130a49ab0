"""Monotone maps of single numbers: each number has its value and its own slope."""

from __future__ import annotations

import mpmath
import pytest
import torch
from conftest import both_dtypes, in_float64

import pyro_dgm as dgm

LAWS = {
    "additive": dgm.flows.Additive,
    "affine": dgm.flows.Affine,
    "spline": lambda: dgm.flows.Spline(5, 3.0),
    "logistic_mixture": lambda: dgm.flows.LogisticMixture(4),
    "logistic_mixture_of_one": lambda: dgm.flows.LogisticMixture(1),
}
laws = pytest.mark.parametrize("build", list(LAWS.values()), ids=list(LAWS))
both_ways = pytest.mark.parametrize("direction", ["forward", "inverse"])


def given(law, *batch: int, dim: int = 4, scale: float = 1.5):
    return 2 * torch.randn(*batch, dim), scale * torch.randn(*batch, law.num_params, dim)


@laws
@both_ways
@pytest.mark.parametrize("batch", [(), (5,), (2, 3, 5)], ids=str)
def test_value_and_log_slope_come_number_by_number(build, direction, batch):
    law = build()
    y, log_slope = getattr(law, direction)(*given(law, *batch))
    assert (y.shape, log_slope.shape) == ((*batch, 4), (*batch, 4))


@laws
@both_ways
@in_float64
def test_the_log_slope_of_each_number_is_that_of_autograd(build, direction):
    law = build()
    f, (x, raw) = getattr(law, direction), given(law, 50)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x, r: f(x, r)[0]))(x, raw)
    slopes = jacobian.diagonal(dim1=-2, dim2=-1)
    assert torch.equal(jacobian, torch.diag_embed(slopes)), "a number depends on another one"
    torch.testing.assert_close(f(x, raw)[1], slopes.log(), rtol=1e-10, atol=1e-10)


@laws
@in_float64
def test_the_inverse_undoes_the_map_and_its_slope(build):
    law = build()
    x, raw = given(law, 200)
    y, log_slope = law.forward(x, raw)
    back, back_log_slope = law.inverse(y, raw)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back_log_slope, -log_slope, rtol=1e-9, atol=1e-9)


@laws
@both_ways
@in_float64
def test_the_gradients_of_a_law_are_those_of_finite_differences(build, direction):
    law = build()
    x, raw = (t.requires_grad_() for t in given(law, 3, dim=2))
    assert torch.autograd.gradcheck(getattr(law, direction), (x, raw))


# The identity at the start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [b for n, b in LAWS.items() if n != "logistic_mixture"])
def test_a_law_is_the_identity_at_zero(build):
    law = build()
    x, raw = given(law, 9, scale=0)
    for f in (law.forward, law.inverse):
        y, log_slope = f(x, raw)
        torch.testing.assert_close(y, x)
        torch.testing.assert_close(log_slope, torch.zeros_like(x))


@pytest.mark.parametrize("num", [2, 3, 4, 8, 32])
def test_a_mixture_starts_near_the_identity_with_slopes_within_0_78_and_1(num):
    law, x = dgm.flows.LogisticMixture(num), torch.linspace(-20, 20, 401)[:, None]
    y, log_slope = law.forward(x, torch.zeros(401, law.num_params, 1))
    assert float(log_slope.exp().min()) > 0.78
    assert float(log_slope.exp().max()) < 1 + 1e-12
    assert float((y - x).abs().max()) < 0.7
    torch.testing.assert_close(y.flip(0), -y)


def test_equal_components_would_stay_equal_and_those_of_a_mixture_do_not():
    law, x = dgm.flows.LogisticMixture(3), torch.randn(50, 1)
    raw = torch.zeros(law.num_params, 1, requires_grad=True)
    y, log_slope = law.forward(x, raw.expand(50, -1, -1))
    (y.square() / 2 - log_slope).sum().backward()
    of_locations = raw.grad[5:8, 0]
    assert len(set(of_locations.tolist())) == 3


# Logistic mixtures ---------------------------------------------------------------------------------------------------


def exactly(x: float, raw: list[float], num: int) -> tuple[float, float]:
    """Value and log-slope of a mixture in 60 digits."""
    with mpmath.workdps(60):
        x, raw = mpmath.mpf(x), [mpmath.mpf(r) for r in raw]
        shift, a = raw[0], 3 * mpmath.tanh(raw[1] / 3)
        weights = [mpmath.exp(r) for r in raw[2 : 2 + num]]
        locations = [
            r - 1 + mpmath.mpf(2 * k) / (num - 1) for k, r in enumerate(raw[2 + num : 2 + 2 * num])
        ]
        widths = [mpmath.exp(3 * mpmath.tanh(r / 3)) for r in raw[2 + 2 * num :]]
        parts = list(zip(weights, locations, widths, strict=True))
        below = sum(w / (1 + mpmath.exp(-(x - m) / s)) for w, m, s in parts) / sum(weights)
        above = sum(w / (1 + mpmath.exp((x - m) / s)) for w, m, s in parts) / sum(weights)
        density = sum(
            w / s / (2 + mpmath.exp((x - m) / s) + mpmath.exp(-(x - m) / s)) for w, m, s in parts
        )
        slope = density / sum(weights) / below / above
        return float(mpmath.log(below / above) * mpmath.exp(a) + shift), float(
            mpmath.log(slope) + a
        )


@both_dtypes
@pytest.mark.parametrize("scale", [0.3, 1, 5])
def test_a_mixture_equals_its_formula_in_60_digits_far_into_both_tails(scale, dtype):
    num, law = 3, dgm.flows.LogisticMixture(3)
    x = torch.tensor([-3e3, -40.0, -9.0, -1.0, -0.1, 0.0, 0.4, 2.0, 13.0, 60.0, 1e4])[:, None]
    raw = scale * torch.randn(len(x), law.num_params, 1)
    y, log_slope = law.forward(x, raw)
    expected = torch.tensor(
        [exactly(v, r, num) for v, r in zip(x[:, 0].tolist(), raw[..., 0].tolist(), strict=True)]
    )
    _, log_scale, (_, loc, log_width) = law._params(raw)
    log_odds = ((x[:, None].abs() + loc.abs()) * (-log_width).exp()).amax(
        1
    )  # the largest number that is rounded
    tolerance = 20 * torch.finfo(dtype).eps * (1 + log_odds)
    assert bool(((y - expected[:, :1]).abs() <= tolerance * (1 + log_scale.exp())).all())
    assert bool(((log_slope - expected[:, 1:]).abs() <= tolerance).all())


@both_dtypes
@pytest.mark.parametrize("scale", [1, 3, 5, 10, 20])
def test_a_mixture_inverts_at_any_raw_scale(scale, dtype):
    """Where it is flat x is unknown, so the residual is held to rounding: that of x times the slope, and y's."""
    law = dgm.flows.LogisticMixture(6)
    raw, y = scale * torch.randn(2000, law.num_params, 4), 3 * torch.randn(2000, 4)
    x, log_slope = law.inverse(y, raw)
    assert bool(x.isfinite().all())
    assert bool(log_slope.isfinite().all())
    again, slope = law.forward(x, raw)
    size = (
        y.abs()
        + raw[:, 0].abs()
        + law._params(raw)[1].exp() * (1 + x.abs())
        + x.abs() * slope.exp()
    )
    reach = raw[:, 8:14].abs().amax(1) * slope.exp()
    assert bool(((again - y).abs() <= 20 * torch.finfo(dtype).eps * (size + reach)).all())


@both_dtypes
def test_the_gradients_of_an_inverse_are_finite_where_the_map_is_flat(dtype):
    """Two narrow components, 40 widths apart."""
    law = dgm.flows.LogisticMixture(2)
    raw = torch.tensor([0.0, 0.0, 0.0, 0.0, -1.0, 1.0, -9.0, -9.0])[:, None].requires_grad_()
    y = torch.tensor([0.0], requires_grad=True)
    x, log_slope = law.inverse(y, raw)
    (x + log_slope).sum().backward()
    assert bool(raw.grad.isfinite().all())
    assert bool(y.grad.isfinite().all())


def test_a_mixture_without_components_is_refused():
    with pytest.raises(ValueError, match="LogisticMixture: expected num_components >= 1, got 0"):
        dgm.flows.LogisticMixture(0)
