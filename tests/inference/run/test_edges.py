"""Draws rounded onto the edge of their support: scored from their own pass where that helps, else flagged."""

from __future__ import annotations

import warnings
from contextlib import suppress

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import SigmoidTransform, TanhTransform

import pyro_dgm as dgm
from pyro_dgm.diagnostics import CollapsedWarning, EdgeWarning
from pyro_dgm.inference.run.own_pass import keeps_pass, remembering
from pyro_dgm.inference.run.traces import log_density, run_pair

in_float32 = pytest.mark.parametrize("dtype", ["float32"], indirect=True)
FLAGGED = r"(?s)site 'z': \d+ of \d+ numbers drawn by the guide were rounded onto the edge .*Fix: "


class Model(dgm.Program):
    def __init__(self, prior, fixed=1.0):
        super().__init__()
        self.prior = prior

    def forward(self, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", self.prior(len(x)))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)


class Guide(dgm.Program):
    def __init__(self, posterior):
        super().__init__()
        self.posterior = posterior

    def forward(self, x=None):
        with dgm.data_plate(x):
            return pyro.sample("z", self.posterior(len(x)))


def full(num, value):
    return torch.full((num, 1), value)


def logit_normal(scale):
    return lambda n: dist.TransformedDistribution(
        dist.Normal(full(n, 0.0), full(n, scale)), [SigmoidTransform()]
    ).to_event(1)


def of(family, *values):
    return lambda n: family(*[full(n, value) for value in values]).to_event(1)


FLAGGED_PAIRS = {
    "a beta prior of a wide logit-normal": (of(dist.Beta, 2.0, 2.0), logit_normal(20.0)),
    "a logit-normal prior, which has no way back": (logit_normal(8.0), logit_normal(8.0)),
    "gammas below all floats": (of(dist.Gamma, 0.01, 1.0), of(dist.Gamma, 0.02, 1.0)),
    "betas at both ends": (of(dist.Beta, 0.01, 0.01), of(dist.Beta, 0.02, 0.02)),
    "a sparse simplex": (
        lambda n: dist.Dirichlet(torch.full((n, 3), 0.02)),
        lambda n: dist.Dirichlet(torch.full((n, 3), 0.01)),
    ),
}
WIDE = of(dist.Normal, 0.0, 2.0)


def around(centre, half):
    return of(dist.Uniform, centre - half, centre + half)


NARROW_PAIRS = {  # they leave most of the prior out, and rounding is not why
    "a uniform guide of a normal prior": (WIDE, around(3.0, 0.5)),
    "a guide as narrow as a thousand floats": (WIDE, of(dist.Normal, 3.0, 1e-3)),
    "a narrow guide of a label": (of(dist.Bernoulli, 0.5), of(dist.Bernoulli, 1.0 - 1e-6)),
}
QUIET_PAIRS = {
    "a flat prior of a wide logit-normal": (of(dist.Uniform, 0.0, 1.0), logit_normal(20.0)),
    "a narrow logit-normal": (of(dist.Beta, 2.0, 2.0), logit_normal(1.0)),
    "exponentials": (of(dist.Exponential, 1.0), of(dist.Exponential, 1.5)),
    "normals": (of(dist.Normal, 0.0, 1.0), of(dist.Normal, 0.0, 1.0)),
}


@in_float32
@pytest.mark.parametrize(("prior", "posterior"), FLAGGED_PAIRS.values(), ids=list(FLAGGED_PAIRS))
def test_draws_on_a_steep_edge_are_flagged(prior, posterior, dtype):
    """Where the edge takes so much that no KL is left, the number is refused as well."""
    with pytest.warns(EdgeWarning, match=FLAGGED), suppress(ValueError):
        dgm.nll(Model(prior), Guide(posterior), torch.zeros(4, 1), num=500)


@in_float32
@pytest.mark.parametrize(("prior", "posterior"), QUIET_PAIRS.values(), ids=list(QUIET_PAIRS))
def test_draws_inside_or_on_a_flat_edge_are_not(prior, posterior, dtype):
    r"""And the evidence is $\int p(z) N(0; z, 1) dz$ by the midpoint rule; 5 standard errors of 40,000 weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dgm.nll(Model(prior), Guide(posterior), torch.zeros(4, 1), num=500)
        draws = dgm.draw(Model(prior), Guide(posterior), torch.zeros(4, 1), num=10_000)
    weight = draws.log_weight.double().exp()
    stderr = float(weight.std()) / weight.numel() ** 0.5
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)[:-1, None] + 5e-5
    law = prior(1)
    z = z[law.support.check(z)]
    truth = 1e-4 * (law.log_prob(z) + dist.Normal(0.0, 1.0).log_prob(z[:, 0])).exp().sum()
    assert stderr < 0.02 * truth
    assert abs(float(weight.mean()) - truth) < 5 * stderr + 1e-4


@in_float32
@pytest.mark.parametrize(("prior", "posterior"), NARROW_PAIRS.values(), ids=list(NARROW_PAIRS))
def test_a_guide_that_is_narrow_but_not_for_rounding_is_not(prior, posterior, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = dgm.nll(Model(prior), Guide(posterior), torch.zeros(4, 1), num=500)
    assert found.per_datum.isfinite().all()


@in_float32
def test_draws_on_an_edge_of_the_guide_s_own_are_flagged(dtype):
    """A `Uniform` of six floats: at its upper end its density is zero, and inside no float is far from an end."""
    guide = Guide(around(3.0, 8e-7))
    of_own = r"(?s)site 'z': \d+ of 2000 .* onto the edge of the guide's own support, .*Fix: "
    with pytest.warns(EdgeWarning, match=of_own), suppress(ValueError):
        dgm.nll(Model(WIDE), guide, torch.zeros(4, 1), num=500)


@in_float32
@pytest.mark.parametrize("num", [1, 30, 500])
@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace])
@pytest.mark.parametrize("scale", [1e-12, 1e-7])
def test_draws_that_rounding_collapsed_are_flagged(family, scale, num, dtype):
    """The draws are one or three floats: weights that are all equal tell of nothing."""
    with pytest.warns(
        CollapsedWarning, match=r"(?s)site 'z': .* torch.float32 rounding collapsed.*Fix: "
    ):
        dgm.nll(Model(WIDE), Guide(of(family, 3.0, scale)), torch.zeros(4, 1), num=num)


def test_the_same_guide_is_none_that_collapses_in_float64():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dgm.nll(Model(WIDE), Guide(of(dist.Normal, 3.0, 1e-12)), torch.zeros(4, 1), num=30)


@in_float32
def test_the_evidence_under_a_flat_prior_is_right_though_draws_round_onto_the_edge(dtype):
    r"""$p(x = 0) = \int_0^1 \mathcal N(0; z, 1)\, dz$; standard error from 40,000 weights, 5 allowed."""
    model, guide = Model(of(dist.Uniform, 0.0, 1.0)), Guide(logit_normal(20.0))
    result = dgm.nll(model, guide, torch.zeros(1, 1), num=40_000)
    truth = -(dist.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).item() - 0.5)
    pair = run_pair(model, guide, (torch.zeros(1, 1),), num=40_000)
    log_w = log_density(pair.modelled["z"]) - log_density(pair.latent["z"])
    log_w = log_w + log_density(pair.observed["x"])
    weights = log_w.double().exp()
    error = (weights.std() / weights.mean() / 40_000**0.5).item()
    assert abs(result.mean + torch.tensor(-truth).log().item()) < 5 * error


@in_float32
@pytest.mark.parametrize(
    "transform", [SigmoidTransform(), TanhTransform(), dist.transforms.ExpTransform()]
)
def test_a_guide_s_draw_is_scored_from_its_own_pass(transform, dtype):
    """Against float64 from the noise that made the draw: at the rounded value there is no way back to it."""

    def posterior(num):
        normal = dist.Normal(full(num, 0.0), full(num, 30.0))
        return dist.TransformedDistribution(normal, [transform]).to_event(1)

    x = torch.zeros(200, 1)
    state = torch.get_rng_state()
    pair = run_pair(Model(posterior), Guide(posterior), (x,))
    torch.set_rng_state(state)
    noise = posterior(200).base_dist.base_dist.sample().double()
    log_q = dist.Normal(0.0, 30.0).log_prob(noise)
    exact = log_q - transform.log_abs_det_jacobian(noise, transform(noise))
    torch.testing.assert_close(
        log_density(pair.latent["z"]).double(), exact.squeeze(-1), rtol=1e-5, atol=1e-5
    )


def test_only_transforms_that_forget_are_replaced():
    normal = dist.Normal(torch.zeros(3), 1.0)
    forgetful = dist.TransformedDistribution(normal, [SigmoidTransform()]).to_event(1)
    kept = remembering(forgetful)
    assert keeps_pass(kept)
    assert not keeps_pass(forgetful)
    assert remembering(kept) is kept
    assert remembering(normal) is normal
    flow = dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, layers=1))()
    assert remembering(flow) is flow


def test_the_score_function_of_draws_that_are_not_reparameterized_keeps_its_gradient():
    shift = nn.Parameter(torch.zeros(()))
    affine = dist.transforms.AffineTransform(shift, 1.0)
    law = dist.TransformedDistribution(dist.Poisson(torch.tensor(2.0)), [affine])
    assert remembering(law) is law


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_outside_of_autocast_is_refused_by_name(half):
    torch.set_default_dtype(half)  # the fixture sets it back
    try:
        vae = dgm.VAE(
            dgm.StandardNormal(2),
            dgm.Bernoulli(dgm.mlp(2, 3)),
            dgm.Conditional(dist.Normal, dgm.mlp(3, 4)),
        )
        x = torch.ones(4, 3)
        with pytest.raises(
            ValueError, match=r"(?s)expected parameters in float32 or float64.*Fix: "
        ):
            dgm.nll(vae.model, vae.guide, x, num=2)
    finally:
        torch.set_default_dtype(torch.float64)


@in_float32
def test_integers_that_the_dtype_rounds_are_refused_under_a_density_and_scored_as_counts(dtype):
    x = torch.tensor([[2**24 + 1]])
    model = dgm.DensityModel(dgm.Conditional(dist.Normal, Constant(2)))
    with pytest.raises(
        ValueError, match=r"(?s)site 'x': expected integers .*16777216, got .*Fix: "
    ):
        dgm.nll(model, dgm.EmptyGuide(), x)
    counts = dgm.DensityModel(dgm.Poisson(Constant(1)))
    law = dist.Poisson(torch.nn.functional.softplus(torch.ones(1).double()) + 1e-6)
    result = dgm.nll(counts, dgm.EmptyGuide(), x)
    assert abs(result.mean / -law.log_prob(x.double()).item() - 1) < 1e-5


class Constant(nn.Module):
    def __init__(self, num):
        super().__init__()
        self.num = num

    def forward(self, *_):
        return torch.ones(self.num)


@in_float32
def test_a_user_s_own_programs_draw_and_score_in_float32_under_autocast(dtype):
    net = nn.Linear(1, 1)

    def posterior(num):
        return dist.Normal(net(torch.ones(num, 1)) + 100.0, 0.01).to_event(1)

    def prior(num):
        return dist.Normal(full(num, 100.0), 1.0).to_event(1)

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        pair = run_pair(Model(prior), Guide(posterior), (torch.zeros(1000, 1),))
    z = pair.latent["z"]["value"]
    assert z.dtype == log_density(pair.latent["z"]).dtype == torch.float32
    # bfloat16 has a spacing of 0.5 at 100: all draws would be one number.
    assert len(z.unique()) > 500
