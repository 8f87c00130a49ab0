"""`fit_posterior` against exact posteriors, the density it climbs, and what its verdict sees."""

from __future__ import annotations

import os
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from posteriors import POSTERIORS, named_numbers
from pyro import poutine
from schools import ERRORS, SCORES, eight_schools, exact_schools
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.refitting.log_density import LogDensity
from pyro_dgm.results import Verdict

Y, SIGMA = torch.tensor(SCORES), torch.tensor(ERRORS)
FOLDER = os.environ.get("PYRO_DGM_POSTERIORDB")


# The fit -------------------------------------------------------------------------------------------------------------


@in_float64
def test_a_conjugate_posterior_is_fitted_to_its_evidence():
    r"""beta ~ N(0, 1), y ~ N(X beta, 1): a normal with evidence N(y; 0, X X^T + I)."""
    x = torch.randn(20, 3) * torch.tensor([1.0, 10.0, 0.1])
    y = x @ torch.tensor([1.0, -0.2, 0.5]) + torch.randn(20)

    def model(y):
        beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(x @ beta, 1.0).to_event(1), obs=y)

    fit = dgm.fit_posterior(model, y, steps=20, num_draws=2000)
    covariance = torch.linalg.inv(x.T @ x + torch.eye(3))
    evidence = dist.MultivariateNormal(torch.zeros(20), x @ x.T + torch.eye(20)).log_prob(y)
    assert abs(fit.verdict.elbo - float(evidence)) < 0.02
    scale = covariance.diagonal().sqrt()
    # 5 standard errors of 2,000 draws
    torch.testing.assert_close(
        (fit.verdict.mean - covariance @ x.T @ y) / scale, torch.zeros(3), rtol=0, atol=0.12
    )
    torch.testing.assert_close(fit.verdict.sd / scale, torch.ones(3), rtol=0, atol=0.09)
    assert fit.verdict.is_reliable
    assert fit.verdict.names == ("beta[0]", "beta[1]", "beta[2]")
    assert fit.history.column("step") == [20]


@in_float64
@pytest.mark.slow
def test_the_posterior_of_eight_schools_is_that_of_quadrature():
    """Means to 0.05 sd and sds to 5 %, of 20,000 draws; the heavy tail of tau adds to its noise."""
    y, sigma = Y.double(), SIGMA.double()
    fit = dgm.fit_posterior(eight_schools, y, sigma, steps=300)
    draws = fit.draws(20_000)
    _, moments = exact_schools(y, sigma)
    for name, (mean, sd) in moments.items():
        shift = (draws[name].mean(0) - mean) / sd
        ratio = draws[name].std(0) / sd
        assert shift.abs().max() < 0.05, name
        assert (ratio.log().abs() < (0.1 if name == "tau" else 0.05)).all(), name
    assert fit.verdict.is_reliable
    assert "theta[7]" in str(fit)
    assert len(fit.to_dataframe()) == 18


def test_a_fit_is_a_function_of_its_seed_and_leaves_the_random_state():
    state = torch.get_rng_state()
    fits = [
        dgm.fit_posterior(eight_schools, Y, SIGMA, steps=5, seed=3, restarts=0) for _ in range(2)
    ]
    assert torch.equal(fits[0].verdict.mean, fits[1].verdict.mean)
    assert torch.equal(state, torch.get_rng_state())
    assert not list(pyro.get_param_store().keys())


def test_a_guide_of_the_caller_is_trained_in_place():
    guide = dgm.FlowGuide(
        eight_schools, dgm.Flow(dgm.StandardNormal(10), dgm.iaf(10, 1, hidden=(16,)))
    )
    fit = dgm.fit_posterior(eight_schools, Y, SIGMA, guide=guide, steps=5, restarts=0)
    assert fit.guide is guide
    moved = [p for p in guide.parameters() if float(p.detach().abs().sum()) > 0]
    assert moved


def test_what_fit_posterior_does_not_take_is_refused_with_the_fix():
    with pytest.raises(TypeError, match=r"fit_posterior: expected a FlowGuide, got .*Fix: "):
        dgm.fit_posterior(eight_schools, Y, SIGMA, guide=nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"expected a guide or a local part .*got both. Fix: "):
        dgm.fit_posterior(
            eight_schools, Y, SIGMA, guide=dgm.FlowGuide(eight_schools), local=dgm.EmptyGuide()
        )
    with pytest.raises(ValueError, match=r"expected all data at once .*batch_size=2. Fix: local="):
        dgm.fit_posterior(eight_schools, Y, SIGMA, batch_size=2)

    def subsampled(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=2) as rows:
            pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[rows])

    with pytest.raises(ValueError, match=r"expected a model of all its data, got the plate 'rows'"):
        dgm.fit_posterior(subsampled, Y)

    def impossible(y):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.factor("nowhere", mu * float("-inf"))

    with pytest.raises(ValueError, match=r"expected a finite log density at the guide's draws"):
        dgm.fit_posterior(impossible, Y, steps=2)


# The density ---------------------------------------------------------------------------------------------------------


def branching(y):
    """A branch on a latent, which no batch of latents can take."""
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = 1.0 if float(mu.detach()) > 0 else 2.0
    pyro.sample("y", dist.Normal(mu, scale).expand([len(y)]).to_event(1), obs=y)


@in_float64
@pytest.mark.parametrize(
    ("model", "is_batched"),
    [(eight_schools, True), (branching, False)],
    ids=["batched", "one by one"],
)
def test_the_log_density_is_that_of_the_model_and_of_the_transforms(model, is_batched):
    args = (Y.double(), SIGMA.double()) if model is eight_schools else (Y.double(),)
    guide = dgm.FlowGuide(model)
    density = LogDensity(model, guide, args)
    assert density.is_batched == is_batched
    u = torch.randn(4, density.dim)
    values = guide.unpack(u)
    for i in range(4):
        given = poutine.condition(model, data={name: value[i] for name, value in values.items()})
        expected = poutine.trace(given).get_trace(*args).log_prob_sum()
        if model is eight_schools:
            expected = expected + values["tau"][i].log()
        torch.testing.assert_close(density(u)[i], expected)
    log_p, slope = density.gradient(u)
    assert slope.shape == u.shape
    assert log_p.shape == (4,)
    torch.testing.assert_close(density.evaluate(u), log_p)


def test_a_program_that_takes_no_batch_is_fitted_point_by_point():
    fit = dgm.fit_posterior(branching, Y, steps=2, num_particles=4, num_draws=100, restarts=0)
    assert not fit.target.density.is_batched
    assert fit.verdict.names == ("mu",)
    assert fit.draws(3)["mu"].shape == (3,)


# The verdict ---------------------------------------------------------------------------------------------------------


def verdict_on(p, q, num=10_000):
    z = q.sample((num,))
    return Verdict.of(p.log_prob(z) - q.log_prob(z), ["z"], z[:, None])


@in_float64
def test_the_verdict_passes_the_exact_guide():
    verdict = verdict_on(dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0))
    assert verdict.is_reliable
    assert verdict.khat == -torch.inf
    assert verdict.shift.abs().max() < 1e-10
    assert "reliable: the weights see no error" in str(verdict)


@in_float64
def test_a_shift_that_a_joint_khat_passes_is_seen_by_the_weights():
    """A silent failure of k-hat: it says that the weights are good, and they say that the guide is not."""
    verdict = verdict_on(dist.Normal(0.5, 1.0), dist.Normal(0.0, 1.0))
    assert verdict.khat < verdict.threshold
    assert verdict.biased == ("z",)
    assert not verdict.is_reliable
    assert abs(float(verdict.shift[0]) + 0.5) < 0.1
    assert "NOT reliable: the weights correct z" in str(verdict)


@in_float64
def test_tails_that_the_guide_lacks_are_flagged():
    verdict = verdict_on(dist.StudentT(torch.tensor(2.0)), dist.Normal(0.0, 1.0))
    assert verdict.khat > verdict.threshold
    assert verdict.heavy == ("z",)
    assert "NOT reliable: tails too heavy (z)" in str(verdict)


@in_float64
def test_the_khat_of_a_quantity_is_that_of_its_product_with_the_weights():
    r"""With w = 1 the k-hat of |h| is the tail of h itself: 1/2 for a Student with two degrees, 1 for its square."""
    law = dist.StudentT(torch.tensor(2.0))
    verdict = verdict_on(law, law, num=100_000)
    assert abs(float(verdict.khat_mean[0]) - 0.5) < 0.15
    assert abs(float(verdict.khat_sd[0]) - 1.0) < 0.2


# posteriordb ---------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.slow
@pytest.mark.skipif(FOLDER is None, reason="needs PYRO_DGM_POSTERIORDB, the folder of posteriordb")
@pytest.mark.parametrize("name", list(POSTERIORS))
def test_a_posterior_of_posteriordb_is_met_or_flagged(name):
    posterior, folder = POSTERIORS[name], Path(FOLDER)
    fit = dgm.fit_posterior(posterior.model, posterior.data(folder))
    draws = named_numbers(fit.draws(20_000, seed=1))
    worst = 0.0
    for quantity, truth in posterior.draws(folder).items():
        shift = float((draws[quantity].mean() - truth.mean()) / truth.std())
        ratio = float(draws[quantity].std() / truth.std())
        worst = max(worst, abs(shift), abs(ratio - 1))
    assert worst <= 0.05 or not fit.verdict.is_reliable


def mixture(x):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("data", len(x)):
        c = pyro.sample("c", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(mean[c], 0.5), obs=x)


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_density_at_new_draws_of_a_discrete_site_is_refused(is_hidden):
    """Pyro's idiom for guides of mixtures; the flow would climb one random assignment after the other."""
    continuous = poutine.block(mixture, hide=["c"])
    model = continuous if is_hidden else mixture
    with pytest.raises(ValueError, match=r"latents are all drawn by the guide, \['mean'\].*Fix: "):
        dgm.fit_posterior(model, torch.randn(20), guide=dgm.FlowGuide(continuous), steps=2)


def test_networks_are_in_evaluation_mode_and_keep_their_statistics():
    """A network in training mode would draw new dropout at each step, and follow the guide's draws."""
    net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    before = [value.clone() for value in net.buffers()]
    fit = dgm.fit_posterior(model, torch.randn(4, 2), steps=3, num_draws=100)
    fit.draws(5)
    assert all(torch.equal(*pair) for pair in zip(before, net.buffers(), strict=True))
    assert all(module.training for module in net.modules())
