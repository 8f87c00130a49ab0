"""Programs of case studies: counts, items, survival, capture and recapture, series, change points."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_median
from pyro.infer.reparam import LocScaleReparam
from torch import nn
from torch.distributions import constraints


def centered_schools(sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("J", len(sigma)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma))


def reparameterized_schools():
    """Handlers of Pyro around the model, which takes no observation."""
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    model = poutine.condition(centered_schools, data={"obs": y})
    model = poutine.reparam(model, config={"theta": LocScaleReparam(0.0)})
    return model, AutoNormal(model), (sigma,)


def robust_model(x, *, y=None):
    a = pyro.sample("a", dist.Normal(0.0, 10.0))
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    nu = pyro.sample("nu", dist.Gamma(2.0, 0.1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(5.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.StudentT(nu, a + b * x, sigma), obs=y)


def robust_regression():
    """The observation is a keyword."""
    x = torch.randn(25)
    y = 1 + 2 * x + 0.5 * torch.randn(25)
    guide = AutoMultivariateNormal(robust_model, init_loc_fn=init_to_median)
    return partial(robust_model, y=y), partial(guide, y=y), (x,)


def level_model(y):
    """A latent for each time, and a site for each observation."""
    s = pyro.sample("s", dist.LogNormal(-1.0, 1.0))
    z = torch.tensor(0.0)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Normal(z, s))
        pyro.sample(f"y_{t}", dist.Normal(z, 0.5), obs=y[t])


def local_level():
    return level_model, AutoMultivariateNormal(level_model), (0.3 * torch.randn(6).cumsum(0),)


def change_model(y):
    """A change point with as many values as there are years."""
    early = pyro.sample("early", dist.Exponential(1.0))
    late = pyro.sample("late", dist.Exponential(1.0))
    tau = pyro.sample(
        "tau", dist.Categorical(logits=torch.zeros(len(y))), infer={"enumerate": "parallel"}
    )
    with pyro.plate("years", len(y)):
        rate = torch.where(torch.arange(len(y)) < tau, early, late)
        pyro.sample("y", dist.Poisson(rate), obs=y)


def change_point():
    y = torch.poisson(torch.tensor([2.0] * 6 + [5.0] * 6))
    guide = AutoDiagonalNormal(poutine.block(change_model, hide=["tau"]))
    return change_model, guide, (y,)


def drawn_change_model(y):
    rates = pyro.sample("rates", dist.Exponential(1.0).expand([2]).to_event(1))
    tau = pyro.sample("tau", dist.Categorical(logits=torch.zeros(len(y))))
    with pyro.plate("years", len(y)):
        rate = torch.where(torch.arange(len(y)) < tau, rates[..., 0], rates[..., 1])
        pyro.sample("y", dist.Poisson(rate), obs=y)


def change_guide(y):
    """A probability for each year."""
    logits = pyro.param("logits", torch.zeros(len(y)))
    loc = pyro.param("loc", torch.tensor([0.5, 1.5]))
    pyro.sample("rates", dist.LogNormal(loc, 0.2).to_event(1))
    pyro.sample("tau", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def change_point_of_guide():
    return drawn_change_model, change_guide, (torch.poisson(torch.tensor([1.0] * 4 + [6.0] * 4)),)


def inflated_model(X, y=None):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    with pyro.plate("n", X.size(0)):
        return pyro.sample("y", dist.ZeroInflatedPoisson((X @ beta).exp(), gate=gate), obs=y)


def zero_inflated_regression():
    X = torch.randn(30, 2)
    y = torch.poisson((X @ torch.tensor([0.5, 0.2])).exp()) * (torch.rand(30) > 0.3)
    return inflated_model, AutoNormal(inflated_model), (X, y)


def items_model(students, items, obs, num_students=8, num_items=5):
    """Item response theory, with a row for each answer."""
    with pyro.plate("students", num_students):
        ability = pyro.sample("ability", dist.Normal(0.0, 1.0))
    with pyro.plate("items", num_items):
        difficulty = pyro.sample("difficulty", dist.Normal(0.0, 3.0))
    with pyro.plate("answers", len(students)):
        logits = ability[students] - difficulty[items]
        pyro.sample("obs", dist.Bernoulli(logits=logits), obs=obs)


def item_response():
    students, items = torch.arange(8).repeat_interleave(5), torch.arange(5).repeat(8)
    answers = torch.bernoulli(torch.full((40,), 0.5))
    return items_model, AutoNormal(items_model), (students, items, answers)


def survival_model(X, t, censored):
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    rate = (X @ b).exp()
    with pyro.plate("patients", len(t)):
        with poutine.mask(mask=~censored):
            pyro.sample("t", dist.Exponential(rate), obs=t)
        with poutine.mask(mask=censored):
            pyro.sample("lasts", dist.Bernoulli((-rate * t).exp()), obs=torch.ones(len(t)))


def survival():
    data = torch.randn(16, 2), torch.rand(16) + 0.1, torch.rand(16) < 0.3
    return survival_model, AutoNormal(survival_model), data


def capture_model(history):
    """Cormack, Jolly, Seber: an animal that was seen is alive, and its later states are summed over."""
    phi = pyro.sample("phi", dist.Uniform(0.0, 1.0))
    rho = pyro.sample("rho", dist.Uniform(0.0, 1.0))
    num, num_times = history.shape
    with pyro.plate("animals", num, dim=-1):
        z, first = torch.ones(num), torch.zeros(num).bool()
        for t in pyro.markov(range(num_times)):
            with poutine.mask(mask=first):
                alive = torch.where(first, phi * z, 1.0)
                z = pyro.sample(f"z_{t}", dist.Bernoulli(alive), infer={"enumerate": "parallel"})
                pyro.sample(f"y_{t}", dist.Bernoulli(rho * z), obs=history[:, t])
            first = first | history[:, t].bool()


def capture_recapture():
    history = torch.bernoulli(torch.full((10, 4), 0.5))
    guide = AutoDiagonalNormal(poutine.block(capture_model, expose=["phi", "rho"]))
    return capture_model, guide, (history,)


def volatility_model(r):
    num, dim = r.shape
    sigma = pyro.sample("sigma", dist.LogNormal(-2.0, 0.5).expand([dim]).to_event(1))
    h = pyro.sample("h", dist.Normal(0.0, 0.3).expand([num, dim]).to_event(2)).cumsum(-2)
    L = pyro.sample("L", dist.LKJCholesky(dim, torch.tensor(2.0)))
    scale = (h / 2).exp() * sigma.unsqueeze(-2)
    with pyro.plate("time", num):
        tril = scale.unsqueeze(-1) * L.unsqueeze(-3)
        pyro.sample("r", dist.MultivariateNormal(torch.zeros(dim), scale_tril=tril), obs=r)


def stochastic_volatility():
    return volatility_model, AutoNormal(volatility_model), (0.2 * torch.randn(10, 2),)


class Counts(nn.Module):
    """Counts of genes, each with a dispersion of its own."""

    def __init__(self, num_genes, latent_dim=2):
        super().__init__()
        self.num_genes, self.latent_dim = num_genes, latent_dim
        self.decoder = nn.Linear(latent_dim, num_genes)
        self.encoder = nn.Linear(num_genes, 2 * latent_dim)

    def model(self, x):
        pyro.module("counts", self)
        ones = x.new_ones(self.num_genes)
        theta = pyro.param("inverse_dispersion", 10.0 * ones, constraint=constraints.positive)
        with pyro.plate("batch", len(x)):
            zeros = x.new_zeros(self.latent_dim)
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            logits = self.decoder(z) - theta.log()
            counts = dist.NegativeBinomial(total_count=theta, logits=logits)
            pyro.sample("obs", counts.to_event(1), obs=x)

    def guide(self, x):
        pyro.module("counts", self)
        with pyro.plate("batch", len(x)):
            loc, log_scale = self.encoder(torch.log1p(x)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def gene_counts():
    counts = Counts(6)
    return counts.model, counts.guide, (torch.poisson(torch.full((20, 6), 3.0)),)
