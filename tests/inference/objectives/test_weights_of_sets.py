"""Objectives over weights of a set whose data share a draw: bounds, estimators, minibatches, against exact figures."""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro import poutine
from torch import nn
from toys import captured, loss_and_grad

import pyro_dgm as dgm
from pyro_dgm.inference.process.states import fork_rng

K = 6
PATHWISE = [
    dgm.StickingTheLanding(),
    dgm.DoublyReparameterized(),
    dgm.training.PathGradient(),
]
ESTIMATORS = [dgm.training.Reparameterized(), *PATHWISE]


def named(value):
    return type(value).__name__


class Hierarchy(dgm.Program):
    r"""mu ~ N(0, 1), z_i ~ N(mu, 1), x_i ~ N(z_i, 1): $\log p(X) = \log N(X; 0, 2 I + 1)$."""

    def __init__(self, size=None):
        super().__init__()
        self.size = size

    def forward(self, x=None):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with dgm.data_plate(x, size=self.size):
            z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


class Affine(nn.Module):
    r"""$N(a x + b u + c, e^s)$; exact at a = b = 1/2, c = 0, $e^s = \sqrt{1/2}$."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x, u):
        a, b, c, s = self.weights
        return dist.Normal(a * x + b * u + c, s.exp()).to_event(1)


def log_evidence(x):
    n = len(x)
    covariance = 2 * torch.eye(n) + 1
    return dist.MultivariateNormal(torch.zeros(n), covariance).log_prob(x[:, 0])


def guide_of(x, *, shift=0.0, spread=1.0, size=None):
    r"""mu ~ N(s / (n + 2), 2 / (n + 2)) by a flow and z by an affine encoder: exact, or so far off."""
    n = len(x)
    local = dgm.AmortizedGuide(Affine(0.5, 0.5, shift, -0.5 * log(2) + log(spread)), size=size)
    guide = dgm.FlowGuide(Hierarchy(size), local=local)
    guide(x)
    loc, scale = x.sum() / (n + 2) + shift, (2 / (n + 2)) ** 0.5 * spread
    guide.place(loc.reshape(1), torch.full((1, 1), scale))
    return guide


def data(num=5):
    return torch.linspace(-1.0, 2.5, num)[:, None]


# The bound -----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("make", [dgm.IWELBO, lambda *a: dgm.Renyi(*a, 0.5)])
def test_under_the_exact_posterior_it_is_the_log_evidence_of_the_set(make):
    x = data()
    terms = make(Hierarchy(), guide_of(x)).terms(x)
    torch.testing.assert_close(terms["loss"], -log_evidence(x) / len(x))
    torch.testing.assert_close(terms["nelbo"], -log_evidence(x) / len(x))


@in_float64
def test_it_rises_with_the_particles_up_to_the_log_evidence():
    """Means over 6,400 draws, each step above 5 standard errors: the guide is loose."""
    x = data()
    guide = guide_of(x, shift=0.3, spread=1.3)
    torch.manual_seed(0)
    log_w = dgm.draw(Hierarchy(), guide, x, num=6400).log_weight_of_set
    means, errors = [], []
    for num in (1, 4, 32):
        bounds = dgm.IWELBO(Hierarchy(), guide, num).bound(log_w.detach().reshape(num, -1))
        means.append(float(bounds.mean()))
        errors.append(float(bounds.std()) / len(bounds) ** 0.5)
    assert means[0] + 5 * errors[0] < means[1] - 5 * errors[1]
    assert means[1] + 5 * errors[1] < means[2] - 5 * errors[2]
    assert means[2] - 5 * errors[2] < float(log_evidence(x))


@in_float64
def test_it_is_the_bound_of_the_draws_that_evidence_weighs():
    x = data()
    objective = dgm.IWELBO(Hierarchy(), guide_of(x, shift=0.3), K)
    torch.manual_seed(3)
    particles = dgm.draw(objective.model, objective.guide, x, num=K)
    log_w = particles.log_weight_of_set
    torch.manual_seed(3)
    torch.testing.assert_close(objective(x), (log(K) - log_w.logsumexp(0)) / len(x))


@in_float64
def test_one_particle_is_the_elbo_on_the_set_and_on_a_minibatch():
    """The ELBO of a minibatch is scaled by N/B, as Pyro scales it."""
    x = data(8)
    model, guide = Hierarchy(8), guide_of(x, shift=0.3, size=8)
    for batch in (x, x[2:5]):
        expected, slopes = loss_and_grad(dgm.ELBO(model, guide, size=8), batch)
        loss, found = loss_and_grad(dgm.IWELBO(model, guide, 1, size=8), batch)
        torch.testing.assert_close(loss, expected)
        for name, slope in slopes.items():
            torch.testing.assert_close(found[name], slope, msg=name)


@in_float64
def test_scales_and_factors_of_the_programs_are_seen_as_by_the_elbo():
    x = data()

    def model(x):
        with poutine.scale(scale=0.5):
            Hierarchy()(x)
        pyro.factor("whole", torch.tensor(-0.7))

    guide = guide_of(x, shift=0.3)
    terms = []
    for objective in (dgm.ELBO(model, guide), dgm.IWELBO(model, guide, 1)):
        torch.manual_seed(1)
        terms.append(objective.terms(x))
    for name in ("loss", "nelbo", "factor[whole]"):
        torch.testing.assert_close(terms[1][name], terms[0][name], msg=name)


@in_float64
def test_a_scale_of_several_numbers_outside_the_data_plate_is_refused():
    x = data()

    def model(x):
        with poutine.scale(scale=torch.ones(1)):
            Hierarchy()(x)

    with pytest.raises(ValueError, match=r"poutine.scale of one number .* all data share.*Fix: "):
        dgm.IWELBO(model, guide_of(x), K)(x)


# Estimators ----------------------------------------------------------------------------------------------------------


@in_float64
@pytest.mark.parametrize("estimator", PATHWISE, ids=named)
@pytest.mark.parametrize("num_particles", [1, K])
def test_their_gradient_vanishes_draw_by_draw_at_the_exact_posterior(estimator, num_particles):
    x = data()
    objective = dgm.IWELBO(Hierarchy(), guide_of(x), num_particles, estimator=estimator)
    plain = dgm.IWELBO(Hierarchy(), guide_of(x), num_particles)
    _, noisy = loss_and_grad(plain, x)
    assert max(float(slope.abs().max()) for slope in noisy.values()) > 0.01
    for seed in range(3):
        _, gradients = loss_and_grad(objective, x, seed=seed)
        for name, gradient in gradients.items():
            assert gradient.abs().max() < 1e-12, name


@in_float64
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=named)
def test_the_value_is_the_same_and_the_gradient_that_of_the_formula(estimator):
    """With w, z and mu as functions of noise: autograd of the bound, without or with the score of the guide."""
    x = data()
    guide = guide_of(x, shift=0.3, spread=1.3)
    loss, gradients = loss_and_grad(dgm.IWELBO(Hierarchy(), guide, K, estimator=estimator), x)
    torch.manual_seed(0)
    with torch.no_grad():
        sites = dgm.draw(Hierarchy(), guide, x, num=K).values
    weights = guide._modules["local"].encoder.weights.detach().requires_grad_()
    a, b, c, s = weights
    flow = dist.Normal(x.sum() / 7 + 0.3, (2 / 7) ** 0.5 * 1.3)
    mu = sites["mu"][:, None, 0].reshape(K, 1)
    eps = (sites["z"][..., 0] - (a * x[:, 0] + b * mu + c).detach()) / s.detach().exp()
    z = a * x[:, 0] + b * mu + c + s.exp() * eps
    a, b, c, s = weights if named(estimator) == "Reparameterized" else weights.detach()
    log_p = dist.Normal(mu, 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x[:, 0])
    log_q = dist.Normal(a * x[:, 0] + b * mu + c, s.exp()).log_prob(z)
    log_w = dist.Normal(0.0, 1.0).log_prob(mu[:, 0]) - flow.log_prob(mu[:, 0])
    log_w = log_w + (log_p - log_q).sum(-1)
    torch.testing.assert_close(loss, (log(K) - log_w.logsumexp(0)).detach() / 5)
    outer = log_w.detach().softmax(0)
    if named(estimator) == "DoublyReparameterized":
        outer = outer**2
    (expected,) = torch.autograd.grad(-(outer * log_w).sum() / 5, weights)
    torch.testing.assert_close(gradients["guide.local.encoder.weights"], expected)


@in_float64
@pytest.mark.parametrize("stack", [dgm.realnvp, dgm.iaf], ids=["realnvp", "iaf"])
@pytest.mark.parametrize("num_particles", [1, K])
@pytest.mark.filterwarnings("ignore::pyro_dgm.flows.DirectionWarning")
def test_path_gradients_of_a_shared_flow_are_those_of_sticking_the_landing(stack, num_particles):
    x = torch.randn(6, 2)

    def model(x):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 0.5).expand([1]).to_event(1))
        with dgm.data_plate(x):
            z = pyro.sample("z", dist.Normal(mean, scale).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    local = dgm.Conditional(dist.Normal, dgm.Concat(dgm.mlp(5, 8, 4)))
    flow = dgm.Flow(dgm.StandardNormal(3), stack(3, layers=2, hidden=(8,)))
    guide = dgm.FlowGuide(model, flow, local=dgm.AmortizedGuide(local))
    guide(x)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    found = []
    for estimator in (dgm.training.PathGradient(), dgm.StickingTheLanding()):
        objective = dgm.IWELBO(model, guide, num_particles, estimator=estimator)
        objective.preflight(x)
        found.append(loss_and_grad(objective, x))
    (loss, gradients), (expected, slopes) = found
    torch.testing.assert_close(loss, expected)
    assert set(gradients) == set(slopes)
    for name, slope in slopes.items():
        torch.testing.assert_close(gradients[name], slope, rtol=1e-6, atol=1e-6, msg=name)


@in_float64
def test_gradients_of_minibatches_have_the_mean_of_those_of_the_set():
    """Means of 80 draws, within 5 standard errors of their difference."""
    x = data(6)
    objective = dgm.IWELBO(
        Hierarchy(6), guide_of(x, shift=0.3, size=6), 1, size=6, estimator=dgm.StickingTheLanding()
    )
    rows = []
    for batch in (x, x[:2], x[2:4], x[4:]):
        drawn = [loss_and_grad(objective, batch, seed=seed)[1] for seed in range(80)]
        rows.append(torch.stack([torch.cat([g.flatten() for g in one.values()]) for one in drawn]))
    whole, parts = rows[0], torch.stack(rows[1:]).mean(0)
    error = (whole.var(0) / 80 + parts.var(0) / 80).sqrt()
    assert ((whole.mean(0) - parts.mean(0)).abs() <= 5 * error + 1e-12).all()
    assert (whole.mean(0).abs() > 6 * error).any()  # a bound that is off: there is something to see


def test_more_particles_of_a_minibatch_are_refused():
    x = data(6)
    model, guide = Hierarchy(6), guide_of(x, size=6)
    expected = (
        r"IWELBO: expected all 6 data at once, for all of them share .*got a minibatch and "
        r"num_particles=4.*Fix: fit\(x, batch_size=6\); or num_particles=1.*ELBO\(model, guide, 4\)"
    )
    for estimator in ESTIMATORS:
        objective = dgm.IWELBO(model, guide, 4, size=6, estimator=estimator)
        objective(x)
        for run in (objective.preflight, objective):
            with pytest.raises(ValueError, match=expected):
                run(x[:2])


@in_float64
@pytest.mark.parametrize("estimator", [*ESTIMATORS[:2], ESTIMATORS[3]], ids=named)
def test_a_step_traces_into_one_graph(estimator):
    x = data()
    objective = dgm.IWELBO(Hierarchy(), guide_of(x, shift=0.3), K, estimator=estimator)
    objective.preflight(x)
    graph, trained, fixed = captured(objective, x)
    with fork_rng(seed=5):
        terms, gradients = graph(trained, fixed, (x,))
    loss, expected = loss_and_grad(objective, x, seed=5)
    torch.testing.assert_close(terms["loss"], loss)
    found = {name.removeprefix("costs."): g for name, g in gradients.items()}
    torch.testing.assert_close(found, expected)
