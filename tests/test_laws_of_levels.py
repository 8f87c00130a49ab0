"""Laws of `programs/laws.py`: exact masses over levels, far outside the range, at tiny and huge scales."""

from __future__ import annotations

import pytest
import torch
from conftest import both_dtypes, in_float64
from mpmath import mp, mpf
from torch import Tensor

import pyro_dgm as dgm
from pyro_dgm.programs.laws import log1mexp


def extreme(levels: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Locations from −10 to +10 ranges around the levels, against log-scales in ±10 and beyond the clamp."""
    centre = (levels - 1) / 2
    loc = torch.cat([centre + levels * torch.linspace(-10, 10, 41), torch.tensor([0.0, 0.5, centre, levels - 1.0])])
    log_scale = torch.cat([torch.linspace(-10, 10, 21), torch.tensor([-40.0, 40.0])])
    loc, log_scale = torch.cartesian_prod(loc, log_scale).unbind(-1)
    return loc.to(dtype or torch.get_default_dtype()), log_scale.to(dtype or torch.get_default_dtype())


def masses(law: dgm.LogisticLevels) -> Tensor:
    """`(levels, *batch)`."""
    values = torch.arange(law.levels).reshape(-1, *[1] * len(law.batch_shape))
    return law.log_prob(values).exp()


def exact_log_mass(loc: float, log_scale: float, levels: int, value: int) -> float:
    r"""$\log P(y)$ in sixty-digit arithmetic and more, straight from the definition."""
    with mp.workdps(20_000 if log_scale < -7 else 2_000):
        scale = mp.exp(mpf(log_scale))
        upper = mpf(1) if value == levels - 1 else 1 / (1 + mp.exp(-(value + mpf(0.5) - mpf(loc)) / scale))
        lower = mpf(0) if value == 0 else 1 / (1 + mp.exp(-(value - mpf(0.5) - mpf(loc)) / scale))
        return float(mp.log(upper - lower))


@both_dtypes
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_masses_sum_to_one_for_any_location_and_scale(levels, dtype):
    total = masses(dgm.LogisticLevels(*extreme(levels), levels)).sum(0)
    assert total.dtype == dtype
    assert float((total - 1).abs().max()) < {torch.float32: 1e-6, torch.float64: 1e-12}[dtype] * max(1, levels / 32)


@both_dtypes
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_log_masses_and_their_gradients_are_finite_everywhere(levels):
    loc, log_scale = (t.requires_grad_() for t in extreme(levels))
    log_p = dgm.LogisticLevels(loc, log_scale, levels).log_prob(torch.arange(levels)[:, None])
    assert bool(log_p.isfinite().all())
    assert bool((log_p <= 0).all())
    for gradient in torch.autograd.grad(log_p.sum(), (loc, log_scale)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_log_masses_in_float32_are_those_of_float64(levels):
    """To relative 1e-5, or to 1e-6 nats where the mass is almost 1."""
    loc, log_scale = extreme(levels, torch.float32)
    values = torch.arange(levels)[:, None]
    single = dgm.LogisticLevels(loc, log_scale, levels).log_prob(values)
    double = dgm.LogisticLevels(loc.double(), log_scale.double(), levels).log_prob(values)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)


@in_float64
@pytest.mark.parametrize("loc", [-40.0, -0.3, 3.0, 4.25, 70.0])
@pytest.mark.parametrize("log_scale", [-4.0, -1.0, 0.0, 2.5, 9.0])
def test_log_masses_are_differences_of_the_logistic_cdf(loc, log_scale):
    law = dgm.LogisticLevels(torch.tensor(loc), torch.tensor(log_scale), levels=8)
    exact = torch.tensor([exact_log_mass(loc, log_scale, 8, y) for y in range(8)])
    torch.testing.assert_close(law.log_prob(torch.arange(8)), exact, rtol=1e-11, atol=1e-13)


@in_float64
def test_gradients_are_those_of_finite_differences():
    loc, log_scale = (torch.randn(5, requires_grad=True) for _ in range(2))
    values = torch.arange(4)[:, None]
    f = lambda loc, log_scale: dgm.LogisticLevels(2 + 3 * loc, log_scale, 4).log_prob(values)  # noqa: E731
    assert torch.autograd.gradcheck(f, (loc, log_scale))


@both_dtypes
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_mean_and_variance_are_those_of_the_enumerated_masses(levels, dtype):
    loc, log_scale = extreme(levels)
    law = dgm.LogisticLevels(loc, log_scale, levels)
    values = torch.arange(levels, dtype=torch.float64)[:, None]
    mass = masses(dgm.LogisticLevels(loc.double(), log_scale.double(), levels))
    mean = (mass * values).sum(0)
    variance = (mass * (values - mean).square()).sum(0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    torch.testing.assert_close(law.mean.double(), mean, rtol=tolerance, atol=levels * tolerance)
    torch.testing.assert_close(law.variance.double(), variance, rtol=10 * tolerance, atol=levels * tolerance)
    assert bool((law.variance >= 0).all())
    assert law.mean.dtype == law.variance.dtype == dtype


@in_float64
def test_moments_have_the_dtype_of_the_parameters_and_not_of_the_process():
    law = dgm.LogisticLevels(torch.zeros(3, dtype=torch.float32), torch.zeros(3, dtype=torch.float32), 4)
    values = law.sample()
    assert values.dtype == law.log_prob(values).dtype == law.cdf(values).dtype == torch.float32
    assert law.mean.dtype == law.variance.dtype == torch.float32


@in_float64
def test_cdf_is_the_running_sum_of_the_masses():
    law = dgm.LogisticLevels(torch.tensor([-30.0, 2.2, 4.0, 90.0]), torch.tensor([1.0, 0.4, -3.0, 8.0]), 7)
    values = torch.arange(7.0)[:, None]
    torch.testing.assert_close(law.cdf(values), masses(law).cumsum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.cdf(values + 0.7), law.cdf(values), rtol=0, atol=0)
    assert torch.equal(law.cdf(torch.tensor(-0.1)), torch.zeros(4))
    assert torch.equal(law.cdf(torch.tensor(6.0)), torch.ones(4))


@both_dtypes
@pytest.mark.parametrize(("loc", "log_scale"), [(-5.0, 1.0), (2.3, 0.2), (2.5, -9.0), (1.0, 3.0), (9.0, 0.5)])
def test_the_sampler_draws_the_scored_masses(loc, log_scale, dtype):
    """Frequencies of 40,000 draws: standard error sqrt(p (1 - p) / n) each, 5 allowed; then their chi-square."""
    law, num = dgm.LogisticLevels(torch.tensor(loc), torch.tensor(log_scale), 6), 40_000
    draws = law.sample((num,))
    assert draws.dtype == dtype
    counts, expected = draws.long().bincount(minlength=6).double(), num * masses(law).double()
    assert bool(((counts - expected).abs() <= 5 * (expected * (1 - expected / num)).clamp(min=0).sqrt() + 1).all())
    usable = expected > 5
    chi_square = ((counts - expected).square() / expected)[usable].sum()
    degrees = max(int(usable.sum()) - 1, 1)
    assert float(chi_square) < degrees + 5 * (2 * degrees) ** 0.5 + 5


def test_an_expanded_law_scores_and_samples_like_the_law():
    law = dgm.LogisticLevels(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0]), 5)
    wide = law.expand((4, 2))
    values = wide.sample()
    assert wide.batch_shape == values.shape == (4, 2)
    torch.testing.assert_close(wide.log_prob(values), law.log_prob(values), rtol=0, atol=0)
    torch.testing.assert_close(wide.mean, law.mean.expand(4, 2), rtol=0, atol=0)
    assert wide.to_event(1).log_prob(values).shape == (4,)
    assert type(wide) is dgm.LogisticLevels
    assert wide.levels == 5


@in_float64
def test_parameters_broadcast_and_integer_values_are_scored():
    law = dgm.LogisticLevels(torch.zeros(3, 1), torch.zeros(2), 5)
    assert law.batch_shape == (3, 2)
    levels = torch.full((3, 2), 2, dtype=torch.uint8)
    torch.testing.assert_close(law.log_prob(levels), law.log_prob(levels.double()), rtol=0, atol=0)


@pytest.mark.parametrize("value", [-1.0, 5.0, 1.5])
def test_a_value_that_is_no_level_is_refused(value):
    law = dgm.LogisticLevels(torch.tensor(1.0), torch.tensor(0.0), 5, validate_args=True)
    for checked in (law, law.expand((2,))):
        with pytest.raises(ValueError, match="within the support"):
            checked.log_prob(torch.tensor(value))


def test_one_level_is_refused():
    with pytest.raises(ValueError, match=r"LogisticLevels: expected at least 2 levels, got 1"):
        dgm.LogisticLevels(torch.tensor(1.0), torch.tensor(0.0), 1)


@both_dtypes
def test_log1mexp_is_accurate_at_both_ends_with_finite_gradients(dtype):
    t = torch.logspace(-6, 1.9, 200).requires_grad_()  # beyond e⁻⁸⁰ float32 has subnormal numbers alone
    with mp.workdps(80):
        exact = torch.tensor([float(mp.log(1 - mp.exp(-mpf(float(v))))) for v in t.detach()])
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-14}[dtype]
    torch.testing.assert_close(log1mexp(t).detach(), exact, rtol=tolerance, atol=0)
    (gradient,) = torch.autograd.grad(log1mexp(t).sum(), t)
    torch.testing.assert_close(gradient, 1 / torch.expm1(t.detach()), rtol=10 * tolerance, atol=1e-40)
