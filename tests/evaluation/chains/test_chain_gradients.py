"""Chains whose gradients are kernels, or a script: those of autograd, in value and gradient."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.evaluation.chains.coordinates import Posterior
from pyro_dgm.evaluation.chains.gradients import MANY, gradient_of, whether_to_compile
from pyro_dgm.evaluation.chains.joint import JointPosterior
from pyro_dgm.evaluation.chains.transitions import value_and_gradient
from pyro_dgm.evaluation.likelihood.walks import AnnealingPath, evaluation_of
from pyro_dgm.inference.training.compiled import functions


@pytest.fixture(params=["script", pytest.param("kernels", marks=pytest.mark.slow)], autouse=True)
def compiled(request, monkeypatch):
    if request.param == "script":  # which takes no compiler
        monkeypatch.setattr(functions, "LONG", 0)


def flow_model():
    prior = dgm.Flow(dgm.StandardNormal(2), dgm.flows.maf(2, 2))
    return dgm.LatentVariableModel(prior, dgm.Bernoulli(dgm.mlp(2, 4, 3)))


def bounded(x=None):
    with dgm.data_plate(x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        return pyro.sample("x", dist.Poisson(rate), obs=x)


@pyro.infer.config_enumerate
def mixture(x=None):
    with dgm.data_plate(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        c = pyro.sample("c", dist.Bernoulli(0.3))
        return pyro.sample("x", dist.Normal(z + 3 * c, 0.5), obs=x)


def with_global(x=None):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    with dgm.data_plate(x):
        return pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


CASES = {
    "flow prior": (flow_model, lambda: torch.rand(4, 3).bernoulli()),
    "bounded": (lambda: bounded, lambda: torch.arange(4.0)),
    "summed": (lambda: mixture, lambda: torch.randn(4)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_autograd_also_at_other_data(name):
    make, data = CASES[name]
    model = make()
    gradient = gradient_of(Posterior(model, (data(),)), compile=True)
    for x in (data(), data()):
        posterior = Posterior(model, (x,))
        zeta = torch.randn(3, len(x), posterior.dim)
        expected = value_and_gradient(posterior.log_joint, zeta)
        torch.testing.assert_close(tuple(gradient(zeta, x)), expected)


def test_so_it_is_where_all_data_share_a_draw():
    x = torch.randn(6)
    posterior = JointPosterior(with_global, (x,))
    zeta = torch.randn(3, 1, posterior.dim)
    expected = value_and_gradient(posterior.log_joint, zeta)
    torch.testing.assert_close(tuple(gradient_of(posterior, compile=True)(zeta, x)), expected)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_path_has_the_same_ends_and_gradients(beta):
    model = flow_model()
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(3, 4, 4)))
    x = torch.rand(4, 3).bernoulli()
    path = AnnealingPath(Posterior(model, (x,)), guide)
    with torch.no_grad():
        zeta = path.draw(3)
        by_kernels = path.by(evaluation_of(path, compile=True))
        torch.testing.assert_close(by_kernels.ends(zeta), path.ends(zeta))
        torch.testing.assert_close(by_kernels.at(beta)(zeta), path.at(beta)(zeta))


@pytest.mark.parametrize("chunk", [20_000, pytest.param(40, marks=pytest.mark.slow)])
def test_annealing_gives_the_same_figure_by_both(chunk):
    """A few temperatures: chains amplify rounding, by ten a transition where the first steps are long."""
    model, x = flow_model(), torch.rand(7, 3).bernoulli()
    options = {"num": 4, "steps": 3, "leapfrog": 2, "chunk": chunk}
    expected = dgm.ais(model, x, compile=False, **options)
    found = dgm.ais(model, x, compile=True, **options)
    torch.testing.assert_close(found.log_weight, expected.log_weight, rtol=1e-5, atol=1e-5)


def test_both_bounds_are_the_same_by_both():
    model = flow_model()
    options = {"num_data": 3, "num": 4, "steps": 3, "leapfrog": 2}
    expected = dgm.bdmc(model, compile=False, **options)
    found = dgm.bdmc(model, compile=True, **options)
    torch.testing.assert_close(found.gap, expected.gap, rtol=1e-5, atol=1e-5)


def test_chains_draw_the_same_by_both():
    model, x = flow_model(), torch.rand(3, 3).bernoulli()
    options = {"num": 4, "warmup": 4, "chains": 2, "leapfrog": 2}
    expected = dgm.hmc(model, x, compile=False, **options)
    found = dgm.hmc(model, x, compile=True, **options)
    torch.testing.assert_close(found.draws["z"], expected.draws["z"], rtol=1e-5, atol=1e-5)


def test_kernels_are_built_where_many_gradients_are_expected():
    assert whether_to_compile("auto", MANY - 1) is False
    assert whether_to_compile("auto", MANY) is None
    assert whether_to_compile(False, MANY) is False
