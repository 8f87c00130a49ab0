"""One way to score: values of any dtype, counts without cancellation, halves in float32, subclasses as they do."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from scipy import stats
from torch.distributions import Poisson as TorchPoisson

import pyro_dgm as dgm
from pyro_dgm.densities.scoring import is_count, log_prob_of

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
HALF = torch.bfloat16


def f32(*values):
    return torch.tensor(values, dtype=torch.float32)


def levels(num, loc=120.0, scale=9.0):
    return dgm.distributions.Discretized(dist.Logistic(f32(loc), f32(scale)), num)


OF_COUNTS = {
    "poisson": dist.Poisson(f32(90.0)),
    "torch's poisson": TorchPoisson(f32(90.0)),
    "binomial": dist.Binomial(127, logits=f32(0.3)),
    "binomial by probability": dist.Binomial(127, probs=f32(0.6)),
    "negative binomial": dist.NegativeBinomial(f32(12.0), logits=f32(1.5)),
    "gamma poisson": dist.GammaPoisson(f32(12.0), f32(0.2)),
    "zero-inflated": dist.ZeroInflatedPoisson(f32(90.0), gate_logits=f32(-1.0)),
    "zero-inflated by probability": dist.ZeroInflatedPoisson(f32(90.0), gate=f32(0.2)),
    "beta binomial": dist.BetaBinomial(f32(3.0), f32(2.0), 127),
    "of events": dist.Poisson(f32(90.0)).to_event(1),
    "masked": dist.Poisson(f32(90.0)).mask(torch.tensor([True])),
    "geometric": dist.Geometric(f32(0.01)),
    "levels": levels(256),
    "more levels than bytes": levels(300),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(f32(0.3, 0.7)), dist.Poisson(torch.tensor([[20.0, 90.0]]).float())
    ),
    "normal": dist.Normal(f32(90.0), f32(10.0)),
}


@pytest.mark.parametrize("law", OF_COUNTS.values(), ids=list(OF_COUNTS))
@pytest.mark.parametrize("dtype_of_data", INTEGERS)
def test_integers_of_any_dtype_have_the_density_of_the_floats(law, dtype_of_data):
    for number in (0, 1, 100, 127):
        log_p = log_prob_of(law, torch.tensor([number], dtype=dtype_of_data))
        torch.testing.assert_close(log_p, log_prob_of(law, f32(number)), rtol=0, atol=0)
        assert log_p.dtype == torch.float32
        assert bool(log_p.isfinite().all())


@pytest.mark.parametrize("law", OF_COUNTS.values(), ids=list(OF_COUNTS))
def test_the_largest_byte_has_the_density_of_the_float(law):
    if "binomial" in str(type(law)).lower():
        pytest.skip("255 is not in its support")
    log_p = log_prob_of(law, torch.tensor([255], dtype=torch.uint8))
    torch.testing.assert_close(log_p, log_prob_of(law, f32(255.0)), rtol=0, atol=0)


@pytest.mark.parametrize("dtype_of_data", [*INTEGERS, torch.bool])
@pytest.mark.parametrize(
    "law",
    [
        dist.Bernoulli(logits=f32(0.7)),
        dist.Categorical(logits=f32(0.7, 0.1)),
        dist.Normal(f32(0.0), f32(1.0)),
        dist.Laplace(f32(0.0), f32(1.0)),
        dist.Poisson(f32(1.0)),
        dist.Geometric(f32(0.4)),
        dist.ContinuousBernoulli(f32(0.4)),
    ],
    ids=lambda law: type(law).__name__,
)
def test_zeros_and_ones_of_any_dtype_have_the_density_of_the_floats(law, dtype_of_data):
    for number in (0, 1):
        log_p = log_prob_of(law, torch.tensor([number], dtype=dtype_of_data))
        torch.testing.assert_close(log_p, log_prob_of(law, f32(number)), rtol=0, atol=0)


LARGE = {
    "poisson": (dist.Poisson(f32(1e8)), 1e8 + 5e3, lambda x: stats.poisson.logpmf(x, 1e8)),
    "binomial": (
        dist.Binomial(10**8, probs=f32(0.5)),
        5e7 + 3e3,
        lambda x: stats.binom.logpmf(x, 10**8, 0.5),
    ),
    "negative binomial": (
        dist.NegativeBinomial(f32(2.0**26), logits=f32(0.0)),
        2.0**26 + 7e3,
        lambda x: stats.nbinom.logpmf(x, 2**26, 0.5),
    ),
    "gamma poisson": (
        dist.GammaPoisson(f32(2.0**26), f32(1.0)),
        2.0**26 + 7e3,
        lambda x: stats.nbinom.logpmf(x, 2**26, 0.5),
    ),
    "beta binomial": (
        dist.BetaBinomial(f32(2.0**24), f32(2.0**24), 2**20),
        2.0**19 + 300,
        lambda x: stats.betabinom.logpmf(x, 2**20, 2**24, 2**24),
    ),
}


@in_float64
@pytest.mark.parametrize(("law", "x", "truth"), LARGE.values(), ids=list(LARGE))
@pytest.mark.parametrize(
    "wrap", [lambda p: p, lambda p: p.to_event(1), lambda p: p.mask(f32(1) > 0)]
)
def test_large_counts_under_pyro_s_own_families_are_right_to_1e_5(law, x, truth, wrap, dtype):
    x = round(x)
    log_p = log_prob_of(wrap(law), torch.tensor([x]))
    torch.testing.assert_close(log_p.double().squeeze(), torch.tensor(truth(x)), rtol=1e-5, atol=0)


def test_an_int64_count_that_float32_rounds_is_scored_as_it_is():
    law, x = dist.Poisson(f32(1e8)), torch.tensor([100_050_003])
    assert int(x.float()) != int(x)
    truth = torch.tensor(stats.poisson.logpmf(int(x), 1e8), dtype=torch.float64)
    torch.testing.assert_close(log_prob_of(law, x).double().squeeze(), truth, rtol=2e-6, atol=0)


def test_a_subclass_scores_in_its_own_way():
    class Truncated(dist.Poisson):
        def log_prob(self, value):
            return super().log_prob(value) - (-(-self.rate).expm1()).log()

    law, x = Truncated(f32(1.5)), torch.tensor([3], dtype=torch.uint8)
    assert log_prob_of(law, x) == law.log_prob(f32(3.0))
    assert log_prob_of(law.to_event(1), x) == law.log_prob(f32(3.0))


def low_rank_normal(loc, scale):
    dtype = torch.promote_types(loc.dtype, torch.float32)  # torch factorizes no halves
    loc, scale = loc.to(dtype), scale.to(dtype)
    return dist.LowRankMultivariateNormal(loc, loc[:, None], scale)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda loc, scale: dist.Normal(loc, scale),
        lambda loc, scale: dist.Logistic(loc, scale).to_event(1),
        lambda loc, scale: dist.Poisson(scale),
        lambda loc, scale: dist.TransformedDistribution(
            dist.Normal(loc, scale), [dist.transforms.AffineTransform(loc, scale)]
        ),
        lambda loc, scale: dist.MultivariateNormal(loc, scale_tril=torch.diag(scale)),
        low_rank_normal,
        lambda loc, scale: dgm.distributions.Discretized(dist.Normal(loc, scale), 8),
    ],
)
def test_parameters_in_half_precision_and_autocast_cost_no_digit(make, autocast):
    loc = torch.randn(5, dtype=torch.float32).to(HALF)
    scale = loc.exp()
    x = torch.randint(0, 8, (5,)).float()
    law = make(loc, scale)
    with torch.autocast("cpu", dtype=HALF, enabled=autocast):
        log_p = log_prob_of(law, x)
    assert log_p.dtype == torch.float32
    truth = log_prob_of(make(loc.double(), scale.double()), x.double())
    torch.testing.assert_close(log_p.double(), truth, rtol=1e-5, atol=1e-5)


def test_what_counts_is_known_through_its_wrappers():
    poisson = dist.Poisson(f32(1.0, 2.0))
    mixture = dist.MixtureSameFamily(dist.Categorical(f32(0.5, 0.5)), poisson)
    for law in (poisson, poisson.to_event(1), poisson.mask(mask=True), mixture):
        assert is_count(law)
    assert not is_count(dist.Bernoulli(f32(0.5)))
    assert not is_count(dist.Normal(f32(0.0), 1.0).to_event(1))


@pytest.mark.parametrize("given", ["probs", "logits"])
def test_a_multinomial_of_millions_is_normalized_in_float64(given):
    probs = torch.tensor([0.1, 0.23, 0.31, 0.4], dtype=torch.float32)
    counts = torch.tensor([2e6, 4e6, 6e6, 8e6], dtype=torch.float32)
    parameter = probs if given == "probs" else probs.log()
    exact = torch.distributions.Multinomial(20_000_000, **{given: parameter.double()})
    found = log_prob_of(dist.Multinomial(20_000_000, **{given: parameter}), counts)
    assert found.item() == pytest.approx(exact.log_prob(counts.double()).item(), rel=1e-5)
