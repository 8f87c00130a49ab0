"""A flow over all latents of any model: its sites, its parameters, Pyro's SVI, and an amortized part beside it."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Predictive, Trace_ELBO
from schools import ERRORS, SCORES
from torch import nn

import pyro_dgm as dgm

Y, SIGMA = torch.tensor(SCORES), torch.tensor(ERRORS)


def schools(y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
    with pyro.plate("schools", len(SIGMA)):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * t, SIGMA.to(mu)), obs=y)


def one_number(y):
    rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)


def test_its_sites_are_those_of_the_model_within_their_supports():
    guide = dgm.FlowGuide(schools)
    values = guide(Y)
    assert {name: tuple(v.shape) for name, v in values.items()} == {
        "mu": (),
        "tau": (),
        "t": (8,),
    }
    assert guide.latent_dim == 10
    assert values["tau"] > 0


def test_parameters_come_with_the_first_call_and_the_store_stays_empty():
    guide = dgm.FlowGuide(schools)
    assert not list(guide.parameters())
    with pytest.raises(ValueError, match=r"FlowGuide: expected a guide that has run .*Fix: guide"):
        guide.posterior_flow()
    guide(Y)
    assert sum(p.numel() for p in guide.parameters()) > 1000
    assert not list(pyro.get_param_store().keys())


@in_float64
def test_it_begins_at_a_normal_around_the_initial_location():
    """m + 0.1 ε: couplings and the linear layer are the identity at the start."""
    guide = dgm.FlowGuide(schools)
    guide(Y)
    u = guide.affine.loc + torch.randn(5, 10)
    expected = dist.Normal(guide.affine.loc, 0.1).to_event(1).log_prob(u)
    torch.testing.assert_close(guide.get_posterior().log_prob(u), expected)


@in_float64
def test_it_is_placed_at_a_normal():
    guide = dgm.FlowGuide(schools)
    guide(Y)
    loc, scale_tril = torch.randn(10), torch.randn(10, 10).tril(-1) + torch.eye(10)
    guide.place(loc, scale_tril)
    u = torch.randn(5, 10)
    expected = dist.MultivariateNormal(loc, scale_tril=scale_tril).log_prob(u)
    torch.testing.assert_close(guide.get_posterior().log_prob(u), expected)


@in_float64
def test_the_density_of_its_draws_is_that_of_the_constrained_values():
    """log q(z) = log q(u) - log|det dz/du|: the transform of tau is the exponential."""
    guide = dgm.FlowGuide(schools)
    trace = poutine.trace(guide).get_trace(Y)
    trace.compute_log_prob()
    latent = trace.nodes["_FlowGuide_latent"]
    tau = trace.nodes["tau"]
    expected = latent["log_prob"] - tau["value"].log()
    torch.testing.assert_close(trace.log_prob_sum(), expected)


@pytest.mark.parametrize("again", [1, 2])
def test_svi_trains_every_instance(again):
    for _ in range(again):  # a second one starts afresh
        guide = dgm.FlowGuide(one_number)
        svi = SVI(
            one_number,
            guide,
            pyro.optim.Adam({"lr": 0.02}),
            Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=1),
        )
        y = torch.tensor([3.0, 5.0, 4.0])
        before = svi.evaluate_loss(y)
        for _ in range(150):
            svi.step(y)
    # Gamma(2 + 12, 1 + 3), mean 3.5
    assert svi.evaluate_loss(y) < before
    draws = guide.quantiles([0.25, 0.5, 0.75], y)["rate"]
    assert abs(float(draws[1]) - 3.42) < 0.4
    assert abs(float(guide.median(y)["rate"]) - 3.42) < 0.4
    assert not list(pyro.get_param_store().keys())


def test_one_number_has_no_coupling():
    guide = dgm.FlowGuide(one_number)
    guide(torch.ones(3))
    kinds = [type(layer).__name__ for layer in guide.posterior_flow().bijector]
    assert kinds == ["LULinear", "FixedAffine"]


def test_a_flow_that_is_handed_over_is_taken_and_one_of_another_size_is_refused():
    flow = dgm.Flow(dgm.StandardNormal(10), dgm.iaf(10, layers=1, hidden=(8,)))
    guide = dgm.FlowGuide(schools, flow)
    guide(Y)
    assert guide.posterior_flow().bijector[0] is flow.bijector[0]
    small = dgm.FlowGuide(schools, dgm.Flow(dgm.StandardNormal(3), dgm.realnvp(3, layers=2)))
    with pytest.raises(ValueError, match=r"FlowGuide: expected a flow over the 10 numbers .*Fix: "):
        small(Y)
    with pytest.raises(TypeError, match=r"FlowGuide: expected a Flow, got a Linear. Fix: "):
        dgm.FlowGuide(schools, nn.Linear(2, 2))


def test_a_flat_prior_begins_at_the_origin():
    def model(y):
        loc = pyro.sample("loc", dist.ImproperUniform(constraints.real_vector, (), (2,)))
        scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
        pyro.sample("y", dist.Normal(loc[..., :1], scale[..., None]).to_event(1), obs=y)

    guide = dgm.FlowGuide(model)
    guide(torch.zeros(4))
    assert guide.affine.loc.tolist() == [0.0, 0.0, 0.0]


def test_copies_and_weights_carry_the_posterior():
    guide = dgm.FlowGuide(schools)
    guide(Y)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    copied = copy.deepcopy(guide)
    again = dgm.FlowGuide(schools)
    again(Y)
    again.load_state_dict(guide.state_dict())
    u = torch.randn(3, 10)
    expected = guide.get_posterior().log_prob(u)
    torch.testing.assert_close(copied.get_posterior().log_prob(u), expected)
    torch.testing.assert_close(again.get_posterior().log_prob(u), expected)
    assert guide.model is not None


def test_predictive_takes_it():
    guide = dgm.FlowGuide(schools)
    guide(Y)
    drawn = Predictive(schools, guide=guide, num_samples=5, parallel=True)()
    assert drawn["y"].shape == (5, 8)


# An amortized part beside the flow -----------------------------------------------------------------------------------


class Affine(nn.Module):
    r"""$N(a x + b u + c, e^s)$, which has the exact conditional posterior of the model below."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x, u):
        a, b, c = self.weights
        return dist.Normal(a * x + b * u + c, self.log_scale.exp()).to_event(1)


def hierarchy(x=None):
    r"""mu ~ N(0, 1), z_i ~ N(mu, 1), x_i ~ N(z_i, 1)."""
    mu = pyro.sample("mu", dist.Normal(torch.zeros(1), 1.0).to_event(1))
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(mu, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


@in_float64
def test_an_amortized_part_beside_the_flow_reaches_the_exact_evidence():
    r"""mu | x ~ N(s / (n + 2), 2 / (n + 2)), z_i | x_i, mu ~ N((x_i + mu) / 2, 1/2); x ~ N(0, 2 I + 1)."""
    x = torch.tensor([[0.3], [1.9], [-0.4], [2.2]])
    guide = dgm.FlowGuide(hierarchy, local=dgm.AmortizedGuide(Affine()))
    svi = SVI(
        hierarchy,
        guide,
        pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}),
        Trace_ELBO(num_particles=32, vectorize_particles=True, max_plate_nesting=1),
    )
    assert set(poutine.trace(guide).get_trace(x).nodes) >= {"mu", "z"}
    assert guide.latent_dim == 1
    for _ in range(500):
        svi.step(x)
    covariance = 2 * torch.eye(4) + 1
    evidence = dist.MultivariateNormal(torch.zeros(4), covariance).log_prob(x[:, 0])
    bound = -sum(svi.evaluate_loss(x) for _ in range(20)) / 20
    assert bound < evidence + 0.02
    assert bound > evidence - 0.02
    local = guide._modules["local"].encoder
    torch.testing.assert_close(
        local.weights.detach(), torch.tensor([0.5, 0.5, 0.0]), rtol=0, atol=0.05
    )
    assert not list(pyro.get_param_store().keys())


def zero_inflated(y, infer):
    gate = pyro.sample("gate", dist.Beta(torch.tensor(2.0), 2.0))
    with pyro.plate("points", len(y)):
        is_zero = pyro.sample("is_zero", dist.Bernoulli(gate), infer=infer)
        pyro.sample("y", dist.Poisson(torch.where(is_zero > 0, 1e-8, 2.0)), obs=y)


def test_a_site_that_is_summed_over_is_left_to_the_sum():
    """Of one global the evidence is a quadrature over its grid."""

    def model(y):
        zero_inflated(y, {"enumerate": "parallel"})

    y = torch.tensor([0.0, 0.0, 3.0, 1.0, 0.0])
    guide = dgm.FlowGuide(model)
    assert list(guide(y)) == ["gate"]
    guide.place(torch.zeros(1), torch.eye(1))
    gate = (torch.arange(2000) + 0.5)[:, None] / 2000
    of_zero = gate.log() + dist.Poisson(torch.tensor(1e-8)).log_prob(y)
    of_count = (1 - gate).log() + dist.Poisson(torch.tensor(2.0)).log_prob(y)
    log_p = dist.Beta(2.0, 2.0).log_prob(gate[:, 0]) + torch.logaddexp(of_zero, of_count).sum(1)
    exact = log_p.logsumexp(0).item() - torch.tensor(2000.0).log().item()
    assert dgm.evidence(model, guide, y, num=4000).value == pytest.approx(exact, abs=0.1)
    with pytest.raises(ValueError, match=r"drawn by the guide, \['gate'\].*Fix: .*which sums over"):
        dgm.fit_posterior(model, y, steps=5, num_draws=100)


def test_a_discrete_site_that_is_not_summed_over_is_refused():
    with pytest.raises(ValueError, match=r"the discrete 'is_zero'\. Fix: infer="):
        dgm.FlowGuide(zero_inflated)(torch.zeros(3), {})
