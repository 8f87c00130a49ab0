"""TraceGraph_ELBO as an objective: Pyro's value and gradient; its baselines move in training alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceGraph_ELBO
from torch import nn

import pyro_dgm as dgm


@pytest.fixture(autouse=True)
def clean_store():
    yield
    pyro.clear_param_store()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 2)

    def forward(self, x):
        pyro.module("net", self.net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(torch.full((1,), 0.4)).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 0.5).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(2, 1)

    def forward(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            z = dist.Bernoulli(logits=self.encoder(x)).to_event(1)
            infer = {"baseline": {"use_decaying_avg_baseline": True}}
            pyro.sample("z", z, infer=infer)


def objective():
    return dgm.PyroObjective(Model(), Guide(), TraceGraph_ELBO(max_plate_nesting=1))


def baselines():
    return [value.clone() for name, value in pyro.get_param_store().items() if "baseline" in name]


def test_value_and_gradient_are_those_of_pyro():
    x, ours = torch.randn(7, 2), objective()
    parameters = list(ours.parameters())
    pyro.set_rng_seed(5)
    loss = ours(x) * 7
    found = torch.autograd.grad(loss, parameters)
    pyro.get_param_store().clear()  # the baselines begin anew
    pyro.set_rng_seed(5)
    expected = TraceGraph_ELBO().loss_and_grads(ours.model, ours.guide, x)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    for gradient, parameter in zip(found, parameters, strict=True):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-10, atol=1e-12)


def test_checks_and_validation_leave_the_baselines():
    x, ours = torch.randn(7, 2), objective()
    ours(x)
    before = baselines()
    ours.preflight(x)
    ours.eval()
    ours(x)
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, baselines(), strict=True))
