"""`fit_posterior` with a local part: an amortized guide of the data's own latents beside a flow of the globals."""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.refitting.amortized import GlobalsAndLocals

N = 12


class Affine(nn.Module):
    r"""$N(a x + b u + c, e^s)$, which has the exact conditional posterior of the model below."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(4))

    def forward(self, x, u):
        a, b, c, s = self.weights
        return dist.Normal(a * x + b * u + c, s.exp()).to_event(1)


def hierarchy(x=None, *, size=None):
    r"""mu ~ N(0, 1), z_i ~ N(mu, 1), x_i ~ N(z_i, 1): mu | X ~ N(s / (N + 2), 2 / (N + 2)), X ~ N(0, 2 I + 1)."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    pyro.deterministic("twice", 2 * mu)
    with dgm.data_plate(x, size=size):
        z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
        return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


def sized(x=None):
    return hierarchy(x, size=N)


def data():
    return torch.linspace(-1.0, 4.0, N)[:, None]


def log_evidence(x):
    return dist.MultivariateNormal(torch.zeros(N), 2 * torch.eye(N) + 1).log_prob(x[:, 0])


def fitted(model, batch_size, steps=350, **options):
    size = N if model is sized else None
    local = dgm.AmortizedGuide(Affine(), size=size)
    options = {"num_particles": 16, "num_draws": 4000, "lr": 0.05} | options
    return dgm.fit_posterior(
        model, data(), local=local, batch_size=batch_size, steps=steps, **options
    )


@in_float64
@pytest.mark.parametrize(
    ("model", "batch_size"),
    [pytest.param(hierarchy, None, marks=pytest.mark.slow, id="the set"), (sized, 4)],
)
def test_it_reaches_the_exact_evidence_and_posterior(model, batch_size):
    """The flow of one number and the encoder hold the posterior, at which path gradients have no noise."""
    x = data()
    fit = fitted(model, batch_size)
    evidence = float(log_evidence(x))
    assert evidence - 0.02 < fit.verdict.elbo < evidence + 0.005
    sd = (2 / (N + 2)) ** 0.5
    # 5 standard errors of 4,000 draws
    assert abs(float(fit.verdict.mean[0] - x.sum() / (N + 2))) < 0.08 * sd
    assert abs(float(fit.verdict.sd[0]) / sd - 1) < 0.06
    assert fit.verdict.names == ("mu[0]", "twice[0]")
    assert fit.verdict.is_reliable
    a, b, c, s = fit.guide.local_guide.encoder.weights.tolist()
    mean = float(x.sum() / (N + 2))  # b and c are hardly told apart where mu is sharp
    assert abs(a - 0.5) < 0.03
    assert abs(b * mean + c - mean / 2) < 0.03
    assert abs(s + 0.5 * log(2)) < 0.03
    draws = fit.draws(2000)
    assert {name: tuple(value.shape) for name, value in draws.items()} == {
        "mu": (2000, 1),
        "z": (2000, N, 1),
        "twice": (2000, 1),
    }
    mean_z = (x[:, 0] + x.sum() / (N + 2)) / 2
    torch.testing.assert_close(draws["z"].mean(0)[:, 0], mean_z, rtol=0, atol=0.1)


@in_float64
@pytest.mark.parametrize("model", [hierarchy, sized])
def test_it_begins_at_the_margin_of_the_best_normal_over_all_latents(model):
    """That is the posterior itself here: all is normal, and a few data have no N/B in their density."""
    size = N if model is sized else None
    guide = dgm.FlowGuide(model, local=dgm.AmortizedGuide(Affine(), size=size))
    target = GlobalsAndLocals(model, guide, (data(),), batch_size=None, seed=0)
    target.place(elsewhere=True)
    affine = guide.affine
    torch.testing.assert_close(affine.loc, (data().sum() / (N + 2))[None], rtol=1e-6, atol=1e-6)
    scale = guide.get_posterior().sample((4000,)).std()
    assert abs(float(scale) / (2 / (N + 2)) ** 0.5 - 1) < 0.06


@in_float64
def test_the_gradient_is_that_of_the_elbo_of_the_set_per_datum():
    guide = dgm.FlowGuide(hierarchy, local=dgm.AmortizedGuide(Affine()))
    target = GlobalsAndLocals(hierarchy, guide, (data(),), batch_size=None, seed=0)
    parameters = list(guide.parameters())
    torch.manual_seed(2)
    cost, finite = target.descend(5, parameters)
    torch.manual_seed(2)
    drawn = dgm.StickingTheLanding().draw(hierarchy, guide, data(), num=5, depth=1)
    loss = -drawn.log_weight_of_set.mean()
    torch.testing.assert_close(cost, loss.detach())
    expected = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, slope in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, slope / N)
    assert finite == 1


def test_the_encoder_learns_before_the_flow_moves():
    """An encoder that knows nothing yet would drive the flow to where its errors cost least."""
    guide = dgm.FlowGuide(hierarchy, local=dgm.AmortizedGuide(Affine()))
    target = GlobalsAndLocals(hierarchy, guide, (data(),), batch_size=None, seed=0)
    weights = guide.local_guide.encoder.weights
    assert [id(p) for p in target.moving(0.1)] == [id(weights)]
    assert {id(p) for p in target.moving(0.3)} == {id(p) for p in guide.parameters()}


def test_a_data_plate_of_another_name_is_known_by_what_it_is():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    guide = dgm.FlowGuide(model, local=dgm.AmortizedGuide(Affine()))
    guide(data())
    assert guide.latent_dim == 1
    plated = dgm.FlowGuide(sized, local=dgm.AmortizedGuide(Affine(), size=N))
    plated(data()[:3])
    assert plated.latent_dim == 1


def test_the_model_is_left_as_it_is():
    net = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    class Model(dgm.Program):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x=None):
            mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            with dgm.data_plate(x):
                z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)

    before = [value.clone() for value in net.parameters()]
    state = torch.get_rng_state()
    local = dgm.AmortizedGuide(Affine())
    dgm.fit_posterior(Model(), data(), local=local, steps=2, num_draws=100, restarts=0)
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training
    assert torch.equal(state, torch.get_rng_state())


def test_minibatches_of_a_plate_without_a_size_are_refused():
    with pytest.raises(
        ValueError,
        match=r"fit_posterior: expected a data plate that knows the size .*Fix: data_plate\(x, size=N\)",
    ):
        fitted(hierarchy, 4, steps=1)
