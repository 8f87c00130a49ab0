"""Generation by models that need data to run, in Pyro's own idioms, against `pyro.infer.Predictive`."""

from math import sqrt

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.inference.drawing.templates import Unconditioned, generative


@pytest.fixture(autouse=True)
def _empty_store():
    """Pyro's `pyro.module` puts the weights into its global store, whoever runs the program."""
    yield
    pyro.clear_param_store()


class PyroVAE(nn.Module):
    """As Pyro's tutorial has it: no `x=None`, another name for the plate, and the location is returned."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid())
        self.encoder = nn.Linear(4, 4)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", x.shape[0]):
            loc = x.new_zeros(torch.Size((x.shape[0], 2)))
            z = pyro.sample("latent", dist.Normal(loc, torch.ones_like(loc)).to_event(1))
            mean = self.decoder(3 * z)
            pyro.sample("obs", dist.Bernoulli(mean).to_event(1), obs=x.reshape(-1, 4))
            return mean

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("images", x.shape[0]):
            loc, log_scale = self.encoder(x.reshape(-1, 4)).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


def images(num):
    return (torch.rand(num, 4) > 0.5).to(torch.get_default_dtype())


@pytest.mark.slow
def test_generation_agrees_with_predictive():
    """Means, and products of neighbours, which see that numbers of one image share z: five standard errors of each."""
    vae, num = PyroVAE(), 8000
    found = dgm.generate(vae.model, num, like=images(3))
    with torch.no_grad():
        model = poutine.uncondition(vae.model)
        expected = Predictive(model, num_samples=num)(images(1))["obs"].flatten(0, 1)
    assert found.shape == expected.shape == (num, 4)
    for statistic in (lambda x: x, lambda x: x * x.roll(1, -1)):
        difference = statistic(found).mean(0) - statistic(expected).mean(0)
        assert difference.abs().max() < 5 * sqrt(2 * 0.25 / num)


def test_values_of_the_template_do_not_count():
    vae = PyroVAE()
    draws = [dgm.generate(vae.model, 50, like=x) for x in (images(5), torch.zeros(1, 4))]
    assert torch.equal(*draws)


def test_means_are_those_of_the_observed_site():
    vae = PyroVAE()
    means = dgm.generate(vae.model, 50, like=images(2), mean=True)
    assert ((means > 0) & (means < 1)).all()


class Exact(nn.Module):
    r"""$z \sim N(0, 1)$, $x \sim N(z + c, 1)$ and its posterior, both by functions of x alone, and of a context."""

    def model(self, x, c):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)

    def guide(self, x, c):
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal((x - c) / 2, sqrt(0.5)))


def test_calibration_of_an_exact_guide_passes_by_a_template():
    pair, x, c = Exact(), torch.zeros(2), torch.linspace(-5, 5, 30)
    assert dgm.sbc(pair.model, pair.guide, c, num_data=1000, like=x).passed(0.001)
    assert dgm.tarp(pair.model, pair.guide, c, num_data=1000, like=x).passed(0.001)
    assert not dgm.sbc(pair.model, pair.guide, c + 20, num_data=100, like=x).ranks.isnan().any()
    bracket = dgm.bdmc(pair.model, c[:4], num_data=4, num=8, steps=50, like=x)
    assert bracket.gap.abs().max() < 1


def test_the_prior_of_a_pair_on_data_needs_no_template():
    vae, x = PyroVAE(), images(40)
    assert 0 < dgm.aggregate_test(vae.model, vae.guide, x, num_permutations=19).p_value <= 1
    assert dgm.to_arviz(vae.model, vae.guide, x, num=3).prior_predictive["obs"].shape[-2:] == (
        40,
        4,
    )


def test_a_model_that_generates_is_itself_and_another_is_unconditioned():
    model = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(nn.Linear(2, 3)))
    assert generative(model, (torch.randn(4, 3),)) is model
    assert isinstance(generative(PyroVAE().model, (images(4),)), Unconditioned)


def test_a_factor_keeps_its_weight():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.factor("f", z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    trace = poutine.trace(Unconditioned(model, torch.zeros(3), whole=True)).get_trace(None)
    assert trace.nodes["f"]["is_observed"]
    assert not trace.nodes["x"]["is_observed"]
    with pytest.raises(
        ValueError, match="site 'f': expected a model that draws from its own density"
    ):
        dgm.generate(model, 5, like=torch.zeros(3))


def test_a_model_that_reads_its_data_raises():
    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.roll(1, 0), 1.0), obs=x)

    with pytest.raises(ValueError, match="site 'x': expected a model whose draws do not depend"):
        dgm.generate(model, 5, like=torch.randn(3))


def test_a_template_that_the_model_does_not_take_raises_with_the_fix():
    with pytest.raises(
        ValueError, match=r"expected a model that runs on data of shape \(2, 3\).*Fix: like=x"
    ):
        dgm.generate(PyroVAE().model, 5, like=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"Fix: .*sbc\(model, guide, like=x\)"):
        dgm.sbc(PyroVAE().model, PyroVAE().guide)


def test_a_model_that_does_not_run_on_none_is_refused_with_the_template_that_works():
    def model(x):
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(
        ValueError,
        match=r"expected model\(None\) to make data; got the error: .* len\(\).* Fix: like=x",
    ):
        dgm.generate(model, 3)
    assert dgm.generate(model, 3, like=torch.zeros(2)).shape == (3,)


def test_a_model_of_one_draw_at_a_time_is_refused_with_what_draws_run_by_run():
    def model(x):
        loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)))
            pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x)

    with pytest.raises(ValueError, match=r"several draws .* at once.*Fix: .*prior_predictive"):
        dgm.generate(model, 7, like=torch.randn(5))
