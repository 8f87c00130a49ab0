"""Laws of `distributions/discretized.py`: exact masses over levels, far outside the range, at tiny and huge scales."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from exact import FAMILIES, base, components, log_mass
from torch import Tensor
from torch.distributions import AffineTransform
from torch.fx.experimental.proxy_tensor import make_fx

import pyro_dgm as dgm

families = pytest.mark.parametrize("family", list(FAMILIES))


def extreme(levels: int, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Locations from −10 to +10 ranges around the levels, against scales of e^±10."""
    centre = (levels - 1) / 2
    loc = torch.cat(
        [
            centre + levels * torch.linspace(-10, 10, 41),
            torch.tensor([0.0, 0.5, centre, levels - 1.0]),
        ]
    )
    loc, log_scale = torch.cartesian_prod(loc, torch.linspace(-10, 10, 21)).unbind(-1)
    dtype = dtype or torch.get_default_dtype()
    return loc.to(dtype), log_scale.exp().to(dtype)


def discretized(
    family: str, loc: Tensor, scale: Tensor, levels: int, dtype: torch.dtype | None = None
):
    return dgm.distributions.Discretized(base(family, loc, scale, dtype), levels)


def at(family: str, loc: float, log_scale: float, levels: int):
    return discretized(family, torch.tensor(loc), torch.tensor(log_scale).exp(), levels)


def masses(law: dgm.distributions.Discretized) -> Tensor:
    """`(levels, *batch)`."""
    values = torch.arange(law.levels).reshape(-1, *[1] * len(law.batch_shape))
    return law.log_prob(values).exp()


@both_dtypes
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@families
def test_masses_sum_to_one_for_any_location_and_scale(family, levels, dtype):
    total = masses(discretized(family, *extreme(levels), levels)).sum(0)
    assert total.dtype == dtype
    assert float((total - 1).abs().max()) < {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]


@both_dtypes
@pytest.mark.parametrize("levels", [2, 17, 256])
@families
def test_log_masses_and_their_gradients_are_finite_everywhere(family, levels):
    loc, scale = (t.requires_grad_() for t in extreme(levels))
    log_p = discretized(family, loc, scale, levels).log_prob(torch.arange(levels)[:, None])
    assert bool(log_p.isfinite().all())
    assert float(log_p.detach().max()) <= (1e-6 if family.startswith("mixture") else 0)
    for gradient in torch.autograd.grad(log_p.sum(), (loc, scale)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("levels", [2, 17, 256])
@families
def test_log_masses_in_float32_are_those_of_float64(family, levels):
    """To relative 1e-5, also where the mass differs from 1 by 1e-37 alone.

    A mixture adds 2.5e-7 nats: the log of a sum that is 1 to the precision of a float has no digit left.
    """
    loc, scale = extreme(levels, torch.float32)
    values = torch.arange(levels)[:, None]
    single = discretized(family, loc, scale, levels).log_prob(values)
    double = discretized(family, loc, scale, levels, torch.float64).log_prob(values)
    absolute = 2.5e-7 if family.startswith("mixture") else 1e-37
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=absolute)


@in_float64
@pytest.mark.parametrize("loc", [-40.0, -0.3, 3.0, 4.25, 70.0])
@pytest.mark.parametrize("log_scale", [-4.0, -1.0, 0.0, 2.5, 9.0])
@families
def test_log_masses_are_differences_of_the_cdf(family, loc, log_scale):
    law = at(family, loc, log_scale, levels=8)
    exact = [
        log_mass(components(law.base), "-inf" if y == 0 else y - 0.5, "inf" if y == 7 else y + 0.5)
        for y in range(8)
    ]
    torch.testing.assert_close(
        law.log_prob(torch.arange(8)), torch.tensor(exact), rtol=1e-11, atol=1e-13
    )


@in_float64
@families
def test_gradients_are_those_of_finite_differences(family):
    loc, log_scale = (torch.randn(5, requires_grad=True) for _ in range(2))
    values = torch.arange(4)[:, None]

    def log_p(loc: Tensor, log_scale: Tensor) -> Tensor:
        return discretized(family, 2 + 3 * loc, log_scale.exp(), 4).log_prob(values)

    assert torch.autograd.gradcheck(log_p, (loc, log_scale))


@both_dtypes
@pytest.mark.parametrize("levels", [2, 17, 256])
@families
def test_mean_and_variance_are_those_of_the_enumerated_masses(family, levels, dtype):
    loc, scale = extreme(levels)
    law = discretized(family, loc, scale, levels)
    values = torch.arange(levels, dtype=torch.float64)[:, None]
    mass = masses(discretized(family, loc, scale, levels, torch.float64))
    mean = (mass * values).sum(0)
    variance = (mass * (values - mean).square()).sum(0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    torch.testing.assert_close(law.mean.double(), mean, rtol=tolerance, atol=levels * tolerance)
    torch.testing.assert_close(
        law.variance.double(), variance, rtol=10 * tolerance, atol=levels * tolerance
    )
    assert bool((law.variance >= 0).all())
    assert law.mean.dtype == law.variance.dtype == dtype


@in_float64
@families
def test_moments_have_the_dtype_of_the_parameters_and_not_of_the_process(family):
    law = discretized(
        family, torch.zeros(3, dtype=torch.float32), torch.ones(3, dtype=torch.float32), 4
    )
    values = law.sample()
    assert values.dtype == law.log_prob(values).dtype == law.cdf(values).dtype == torch.float32
    assert (
        law.mean.dtype
        == law.variance.dtype
        == law.mode.dtype
        == law.icdf(law.cdf(values)).dtype
        == torch.float32
    )


def seven_levels(family: str) -> dgm.distributions.Discretized:
    loc, log_scale = (
        torch.tensor([-30.0, 2.2, 4.0, 90.0, 2.5]),
        torch.tensor([1.0, 0.4, -3.0, 8.0, 1.0]),
    )
    return discretized(family, loc, log_scale.exp(), 7)


@in_float64
@families
def test_cdf_is_the_running_sum_of_the_masses(family):
    law, values = seven_levels(family), torch.arange(7.0)[:, None]
    torch.testing.assert_close(law.cdf(values), masses(law).cumsum(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.cdf(values + 0.7), law.cdf(values), rtol=0, atol=0)
    assert torch.equal(law.cdf(torch.tensor(-0.1)), torch.zeros(5))
    assert torch.equal(law.cdf(torch.tensor(6.0)), torch.ones(5))


@pytest.mark.parametrize("levels", [2, 3, 5, 7, 8])
@families
def test_icdf_is_the_smallest_level_whose_cdf_reaches_the_probability(family, levels):
    base_law = seven_levels(family).base
    law, p = dgm.distributions.Discretized(base_law, levels), torch.linspace(0, 1, 41)[:, None]
    reached = law.cdf(torch.arange(levels).to(p)[:, None, None]) >= p
    torch.testing.assert_close(law.icdf(p), reached.to(p).argmax(0).to(p), rtol=0, atol=0)
    assert law.icdf(torch.tensor(0.5)).shape == (5,)


@families
def test_mode_is_the_level_of_the_largest_mass(family):
    law = seven_levels(family)
    torch.testing.assert_close(law.mode, masses(law).argmax(0).to(law.mode), rtol=0, atol=0)


@both_dtypes
@pytest.mark.parametrize(
    ("loc", "log_scale"), [(-5.0, 1.0), (2.3, 0.2), (2.5, -9.0), (1.0, 3.0), (9.0, 0.5)]
)
@families
def test_the_sampler_draws_the_scored_masses(family, loc, log_scale, dtype):
    """Frequencies of 40,000 draws: standard error sqrt(p (1 - p) / n) each, 5 allowed; then their chi-square."""
    law, num = at(family, loc, log_scale, 6), 40_000
    draws = law.sample((num,))
    assert draws.dtype == dtype
    counts, expected = draws.long().bincount(minlength=6).double(), num * masses(law).double()
    assert bool(
        (
            (counts - expected).abs()
            <= 5 * (expected * (1 - expected / num)).clamp(min=0).sqrt() + 1
        ).all()
    )
    usable = expected > 5
    chi_square = ((counts - expected).square() / expected)[usable].sum()
    degrees = max(int(usable.sum()) - 1, 1)
    assert float(chi_square) < degrees + 5 * (2 * degrees) ** 0.5 + 5


@families
def test_an_expanded_law_scores_and_samples_like_the_law(family):
    law = discretized(family, torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.7]), 5)
    wide = law.expand((4, 2))
    values = wide.sample()
    assert wide.batch_shape == values.shape == (4, 2)
    torch.testing.assert_close(wide.log_prob(values), law.log_prob(values), rtol=0, atol=0)
    torch.testing.assert_close(wide.mean, law.mean.expand(4, 2), rtol=0, atol=0)
    assert wide.to_event(1).log_prob(values).shape == (4,)
    assert type(wide) is dgm.distributions.Discretized
    assert wide.levels == 5


@families
def test_a_scalar_value_gives_one_mass_for_each_law_of_the_batch(family):
    law = discretized(family, torch.zeros(3, 2), torch.ones(3, 2), 5)
    assert (
        law.log_prob(torch.tensor(1)).shape
        == law.cdf(torch.tensor(1.0)).shape
        == law.mode.shape
        == (3, 2)
    )


@in_float64
@families
def test_integer_values_are_scored(family):
    law = discretized(family, torch.zeros(3, 2), torch.ones(3, 2), 5)
    levels = torch.full((3, 2), 2, dtype=torch.uint8)
    torch.testing.assert_close(law.log_prob(levels), law.log_prob(levels.double()), rtol=0, atol=0)


@pytest.mark.parametrize("parallel", [False, True])
@families
def test_a_law_of_levels_is_drawn_by_predictive_under_a_plate(family, parallel):
    def program() -> Tensor:
        loc = pyro.sample("loc", dist.Normal(2.0, 1.0))
        with pyro.plate("data", 5):
            return pyro.sample(
                "x", discretized(family, loc, torch.tensor(0.7).expand(loc.shape), 6)
            )

    drawn = pyro.infer.Predictive(program, num_samples=7, parallel=parallel)()["x"]
    assert drawn.shape == (7, 5)
    assert bool(((drawn >= 0) & (drawn <= 5) & (drawn == drawn.round())).all())


@families
def test_a_law_of_levels_traces_into_one_graph(family):
    """Score, CDF, quantile and moments through `make_fx`; the graph is then run on other parameters."""

    def everything(loc: Tensor, scale: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        law = discretized(family, loc, scale, 6)
        return (
            law.log_prob(value),
            law.cdf(value),
            law.icdf(value / 6),
            law.mean,
            law.variance,
            law.mode,
        )

    with pyro.validation_enabled(False):
        graph = make_fx(everything)(torch.zeros(4), torch.ones(4), torch.arange(4.0))
        others = (
            torch.tensor([-50.0, 2.0, 3.3, 9.0]),
            torch.tensor([1e-3, 0.1, 2.0, 50.0]),
            torch.tensor([5.0, 2, 0, 1]),
        )
        torch.testing.assert_close(graph(*others), everything(*others))


@pytest.mark.parametrize("value", [-1.0, 5.0, 1.5])
@families
def test_a_value_that_is_no_level_is_refused(family, value):
    law = dgm.distributions.Discretized(
        base(family, torch.tensor(1.0), torch.tensor(1.0)), 5, validate_args=True
    )
    for checked in (law, law.expand((2,))):
        with pytest.raises(ValueError, match="within the support"):
            checked.log_prob(torch.tensor(value))


def test_one_level_is_refused():
    with pytest.raises(ValueError, match=r"Discretized: expected at least 2 levels, got 1"):
        dgm.distributions.Discretized(dist.Normal(torch.tensor(1.0), 1.0), 1)


def test_a_base_of_vectors_is_refused_with_the_fix():
    with pytest.raises(
        ValueError, match=r"base of scalar events, got event_shape \(3,\)\. Fix: .*\.to_event\(1\)"
    ):
        dgm.distributions.Discretized(dist.Normal(torch.zeros(3), 1.0).to_event(1), 4)


# Bases without functions of their own --------------------------------------------------------------------------------

ON_HALF_LINES = {
    "log_normal": lambda p: dist.LogNormal(p, 1.0),
    "gamma": lambda p: dist.Gamma(2.0, p.exp()),
    "exponential": lambda p: dist.Exponential(p.exp()),
    "uniform": lambda p: dist.Uniform(-1.0, 4 * p.exp()),
    "pareto": lambda p: dist.Pareto(p.exp(), 2.0),
    "half_normal": lambda p: dist.HalfNormal(p.exp()),
    "gumbel": lambda p: dist.Gumbel(p, 1.0),
    "cauchy": lambda p: dist.Cauchy(p, 1.0),
    "scaled_normal": lambda p: dist.TransformedDistribution(
        dist.Normal(p, 1.0), [AffineTransform(1.0, 2.0)]
    ),
}


@in_float64
@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("build", list(ON_HALF_LINES.values()), ids=list(ON_HALF_LINES))
def test_any_law_with_a_cdf_is_discretized_whatever_its_support(build, validate):
    """Half-levels beyond the support have a CDF of 0 or 1. Masses by definition, gradients by finite differences."""
    with pyro.validation_enabled(validate):
        p = torch.tensor(0.5, requires_grad=True)
        law = dgm.distributions.Discretized(build(p), 6)
        log_p = law.log_prob(torch.arange(6))
        torch.testing.assert_close(log_p.exp().sum(), torch.ones(()))
        inner = build(p).cdf(torch.tensor([2.5, 3.5]))
        torch.testing.assert_close(log_p[3], (inner[1] - inner[0]).log())
        values = torch.arange(6)
        assert torch.autograd.gradcheck(
            lambda p: dgm.distributions.Discretized(build(p), 6).log_prob(values)[1:].exp(), p
        )
        (gradient,) = torch.autograd.grad(log_p.exp().square().sum(), p)
        assert bool(gradient.isfinite())
        mass = log_p.exp().detach()
        torch.testing.assert_close(law.mean.detach(), (mass * values).sum())


def test_a_law_without_a_cdf_is_refused():
    law = dgm.distributions.Discretized(dist.StudentT(3.0, torch.zeros(()), 1.0), 5)
    with pytest.raises(
        TypeError, match=r"StudentT: expected a distribution with a cdf.*Fix: register functions"
    ):
        law.log_prob(torch.arange(5))


@pytest.mark.parametrize("shift", [0.0, 50.0, 1000.0])
@pytest.mark.parametrize("spread", [1.0, 20.0, 1000.0])
def test_masses_of_a_mixture_sum_to_one_for_any_logits(shift, spread):
    """In float32 as well: a network may shift all logits, and the law must not care."""
    logits = (torch.randn(200, 5) * spread + shift).float()
    parts = dist.Logistic(torch.rand(200, 5).float() * 256, torch.randn(200, 5).exp().float() * 10)
    law = dgm.distributions.Discretized(
        dist.MixtureSameFamily(dist.Categorical(logits=logits), parts), 256
    )
    total = law.log_prob(torch.arange(256)[:, None]).exp().sum(0)
    assert float((total - 1).abs().max()) < 1e-6


def test_a_class_or_a_conditional_in_place_of_the_base_is_refused_with_the_fix():
    fix = r"Fix: Discretized\(dist.Normal\(loc, scale\), 5\)"
    with pytest.raises(TypeError, match=rf"expected a distribution, got the class Normal. {fix}"):
        dgm.distributions.Discretized(dist.Normal, 5)
    with pytest.raises(
        TypeError, match=rf"expected a distribution, got the conditional StandardNormal. {fix}"
    ):
        dgm.distributions.Discretized(dgm.StandardNormal(3), 5)
    with pytest.raises(ValueError, match=r"expected at least 2 levels, got 1. Fix: levels=256"):
        dgm.distributions.Discretized(dist.Normal(0.0, 1.0), 1)


def test_a_discretized_distribution_prints_its_base_and_its_levels():
    law = dgm.distributions.Discretized(dist.Normal(0.0, 2.0), 5)
    assert repr(law) == "Discretized(Normal(loc: 0.0, scale: 2.0), levels=5)"
