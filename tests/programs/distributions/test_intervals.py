"""Log masses of intervals against sixty-digit arithmetic, at every border between two formulas."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes, in_float64
from exact import SURVIVAL, log_mass
from mpmath import mp, mpf
from torch import Tensor
from torch.distributions import Distribution

import pyro_dgm as dgm
from pyro_dgm.programs.distributions.cells import log1mexp
from pyro_dgm.programs.distributions.intervals import log_cell

KERNELS = {family.__name__: family for family in SURVIVAL}
kernels = pytest.mark.parametrize("family", list(KERNELS.values()), ids=list(KERNELS))
OTHERS = {"torch": torch.distributions.Normal, "pyro": dist.Normal}


@both_dtypes
def test_log1mexp_is_accurate_at_both_ends_with_finite_gradients(dtype):
    t = torch.logspace(
        -6, 1.9, 200
    ).requires_grad_()  # beyond e⁻⁸⁰ float32 has subnormal numbers alone
    with mp.workdps(80):
        exact = torch.tensor([float(mp.log(1 - mp.exp(-mpf(float(v))))) for v in t.detach()])
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-14}[dtype]
    torch.testing.assert_close(log1mexp(t).detach(), exact, rtol=tolerance, atol=0)
    (gradient,) = torch.autograd.grad(log1mexp(t).sum(), t)
    torch.testing.assert_close(
        gradient, 1 / torch.expm1(t.detach()), rtol=10 * tolerance, atol=1e-40
    )


def cells(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Centres from 0 to ±10,000 and widths from e⁻²⁰ to e⁸ in scales; their ends lie around, at or beyond 0."""
    centre = torch.cat([torch.tensor([0.0, 1e-3, 0.05, 0.5, 1.0, 1.7]), torch.logspace(0.3, 4, 12)])
    width = torch.cat([torch.logspace(-9, 3.5, 26), torch.tensor([0.1, 2.0, 3.4])])
    centre, width = torch.cartesian_prod(torch.cat([centre, -centre]), width).to(dtype).unbind(-1)
    return centre, width


@both_dtypes
@kernels
def test_log_intervals_are_those_of_sixty_digits_for_any_centre_and_width(family, dtype):
    """To relative 1e-12 (float32: 1e-5), also where a mass differs from 1 by the smallest normal number alone."""
    centre, width = cells(dtype)
    law = family(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype))
    exact = []
    for c, w in zip(centre.tolist(), width.tolist(), strict=True):
        with mp.workdps(60):
            exact.append(
                log_mass([(1, family, 0.0, 1.0)], mpf(c) - mpf(w) / 2, mpf(c) + mpf(w) / 2)
            )
    exact, got = (
        torch.tensor(exact, dtype=torch.float64),
        dgm.distributions.log_interval(law, centre, width).double(),
    )
    rtol, atol = {torch.float32: (1e-5, 1e-37), torch.float64: (1e-12, 1e-300)}[dtype]
    torch.testing.assert_close(got, exact, rtol=rtol, atol=atol)


@in_float64
@kernels
def test_gradients_of_log_intervals_are_the_densities_at_the_ends(family):
    r"""$\partial_c = [f(b) - f(a)] / P$ and $\partial_w = [f(b) + f(a)] / 2 P$, in sixty digits."""
    law = family(torch.zeros(()), torch.ones(()))
    centre, width = (t.requires_grad_() for t in cells(torch.float64))
    found = torch.autograd.grad(
        dgm.distributions.log_interval(law, centre, width).sum(), (centre, width)
    )
    exact = torch.tensor(
        [slopes(family, c, w) for c, w in zip(centre.tolist(), width.tolist(), strict=True)],
        dtype=torch.float64,
    ).unbind(-1)
    scale = exact[1]  # the slope in c is the difference of two such numbers
    assert float(((found[0] - exact[0]).abs() / scale.clamp(min=1e-290)).max()) < 1e-8
    torch.testing.assert_close(found[1], exact[1], rtol=1e-8, atol=1e-290)


def slopes(family, c: float, w: float) -> tuple[float, float]:
    with mp.workdps(60):
        a, b = mpf(c) - mpf(w) / 2, mpf(c) + mpf(w) / 2
        log_p = mpf(log_mass([(1, family, 0.0, 1.0)], a, b))
        f_a, f_b = (mp.exp(log_density(family, x) - log_p) for x in (a, b))
        return float(f_b - f_a), float((f_a + f_b) / 2)


def log_density(family, x):
    if family is dist.Normal:
        return -x * x / 2 - mp.log(2 * mp.pi) / 2
    x = abs(x)
    return -x - mp.log(2) if family is dist.Laplace else -x - 2 * mp.log1p(mp.exp(-x))


@both_dtypes
@kernels
def test_gradients_of_log_intervals_are_finite_in_any_dtype(family, dtype):
    centre, width = (t.requires_grad_() for t in cells(dtype))
    loc, scale = (
        torch.zeros(centre.shape, requires_grad=True),
        torch.ones(centre.shape, requires_grad=True),
    )
    log_p = dgm.distributions.log_interval(family(loc, scale), centre, width)
    for gradient in torch.autograd.grad(log_p.sum(), (centre, width, loc, scale)):
        assert bool(gradient.isfinite().all())


@both_dtypes
@kernels
def test_log_cdf_and_log_sf_keep_their_digits_in_both_tails(family, dtype):
    x = torch.cat([-torch.logspace(4, -3, 30), torch.zeros(1), torch.logspace(-3, 4, 30)]).to(dtype)
    law = family(torch.zeros((), dtype=dtype), torch.ones((), dtype=dtype))
    exact = torch.tensor(
        [log_mass([(1, family, 0.0, 1.0)], "-inf", v) for v in x.tolist()], dtype=torch.float64
    )
    rtol, atol = {torch.float32: (1e-5, 1e-37), torch.float64: (1e-13, 1e-300)}[dtype]
    torch.testing.assert_close(
        dgm.distributions.log_cdf(law, x).double(), exact, rtol=rtol, atol=atol
    )
    torch.testing.assert_close(
        dgm.distributions.log_sf(law, -x).double(), exact, rtol=rtol, atol=atol
    )


@both_dtypes
def test_the_slope_of_a_normal_tail_is_its_distance(dtype):
    """torch's `log_ndtr` has a slope of 0.4 at -100,000 in float32."""
    x = torch.tensor([1e2, 1e3, 1e5, 1e8], requires_grad=True)
    law = dist.Normal(torch.zeros(()), torch.ones(()))
    (slope,) = torch.autograd.grad(dgm.distributions.log_sf(law, x).sum(), x)
    torch.testing.assert_close(slope, -x.detach(), rtol=2e-4, atol=0)


@in_float64
@pytest.mark.parametrize(
    "ask",
    [
        dgm.distributions.log_cdf,
        dgm.distributions.log_sf,
        lambda law, x: dgm.distributions.log_interval(law, x, 0.7),
    ],
)
def test_a_mixture_is_the_weighted_sum_of_its_components(ask):
    law = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.randn(4, 3)),
        dist.Logistic(torch.randn(4, 3), torch.rand(4, 3) + 0.2),
    )
    x = torch.randn(5, 4)
    parts = ask(law.component_distribution, x[..., None]).exp()
    torch.testing.assert_close(ask(law, x), (law.mixture_distribution.probs * parts).sum(-1).log())


@pytest.mark.parametrize("family", list(OTHERS.values()), ids=list(OTHERS))
def test_the_laws_of_torch_and_of_pyro_are_answered_alike(family):
    x = torch.tensor([-40.0, 0.3, 60.0])  # a difference of the CDFs would be 0 there
    expected = dgm.distributions.log_interval(
        dist.Normal(torch.tensor(0.5), torch.tensor(2.0)), x, 1.0
    )
    assert float(expected.min()) < -400
    torch.testing.assert_close(
        dgm.distributions.log_interval(family(torch.tensor(0.5), torch.tensor(2.0)), x, 1.0),
        expected,
    )


def test_an_expanded_law_has_the_shape_of_its_batch():
    law = dist.ExpandedDistribution(dist.Normal(torch.tensor([0.5, 3.0]), 2.0), torch.Size((3, 2)))
    x = torch.tensor(-40.0)
    expected = dist.Normal(torch.tensor([0.5, 3.0]), 2.0)
    for ask in (
        dgm.distributions.log_cdf,
        dgm.distributions.log_sf,
        lambda law, x: dgm.distributions.log_interval(law, x, 1.0),
        edge,
    ):
        torch.testing.assert_close(ask(law, x), ask(expected, x).expand(3, 2), rtol=0, atol=0)


def edge(law: Distribution, x: Tensor) -> Tensor:
    return log_cell(law, x, 1.0, x < 0, x > 0)


@kernels
def test_an_open_cell_takes_its_tail(family):
    law, x = family(torch.tensor(0.3), torch.tensor(1.3)), torch.tensor([-2.0, 0.0, 2.0])
    exact = torch.stack(
        [
            dgm.distributions.log_cdf(law, x[0] + 0.5),
            dgm.distributions.log_interval(law, x[1], 1.0),
            dgm.distributions.log_sf(law, x[2] - 0.5),
        ]
    )
    torch.testing.assert_close(edge(law, x), exact)


@in_float64
def test_a_law_with_a_cdf_alone_is_read_off_by_differences():
    law, x = dist.Cauchy(torch.tensor(0.5), torch.tensor(1.5)), torch.linspace(-50, 50, 21)
    exact = (law.cdf(x + 0.35) - law.cdf(x - 0.35)).log()
    torch.testing.assert_close(dgm.distributions.log_interval(law, x, 0.7), exact)
    torch.testing.assert_close(dgm.distributions.log_cdf(law, x), law.cdf(x).log())
    torch.testing.assert_close(dgm.distributions.log_sf(law, x), (1 - law.cdf(x)).log())
    levels = dgm.distributions.Discretized(law, 9)
    torch.testing.assert_close(levels.log_prob(torch.arange(9)).exp().sum(), torch.tensor(1.0))


@both_dtypes
def test_noise_that_rounding_puts_onto_an_end_of_its_support_is_read_off_too(dtype):
    gumbel = dist.Gumbel(
        torch.zeros(()), 1.0, validate_args=True
    )  # x is a function of a uniform number
    x = torch.tensor([-6.0, -2.0, 0.0, 12.0, 30.0])  # exp(−e⁻ˣ) rounds to 0 or to 1 at both ends
    expected = -(-x.double()).exp()
    found = dgm.distributions.log_cdf(gumbel, x).double()
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-5, atol=2e-7)
    levels = dgm.distributions.Discretized(dist.Gumbel(torch.tensor([0.0, 8.0, 40.0]), 0.5), 17)
    total = levels.log_prob(torch.arange(17.0)[:, None]).exp().sum(0)
    torch.testing.assert_close(total, torch.ones(3), rtol=0, atol=1e-5)


def test_a_mass_that_differences_lose_is_the_smallest_normal_number_and_has_no_gradient():
    loc = torch.tensor(0.0, requires_grad=True)
    log_p = dgm.distributions.log_interval(
        dist.Cauchy(loc, torch.tensor(1.0)), torch.tensor(1e12), 1.0
    )
    assert float(log_p.detach()) == float(torch.tensor(torch.finfo(log_p.dtype).tiny).log())
    (gradient,) = torch.autograd.grad(log_p, loc)
    assert float(gradient) == 0


class Uniform(dist.Uniform):
    """A family of a user's own."""


@dgm.distributions.log_interval.register
def _(law: Uniform, centre: Tensor, width: float) -> Tensor:
    return (width / (law.high - law.low)).log() + 0 * centre


def test_a_family_of_a_users_own_can_be_registered():
    law = dgm.distributions.Discretized(Uniform(torch.tensor(-0.5), torch.tensor(7.5)), 8)
    torch.testing.assert_close(law.log_prob(torch.arange(1, 7)), torch.full((6,), 1 / 8).log())


@pytest.mark.parametrize("ask", [dgm.distributions.log_cdf, dgm.distributions.log_sf])
def test_the_interval_of_a_class_is_refused_with_the_fix(ask):
    message = r"expected a distribution, got the class Normal. Fix: log_interval\(dist.Normal\(0"
    with pytest.raises(TypeError, match=message):
        ask(dist.Normal, torch.zeros(2))
    with pytest.raises(TypeError, match=message):
        dgm.distributions.log_interval(dist.Normal, torch.zeros(2), 1.0)
