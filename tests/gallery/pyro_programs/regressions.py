"""Programs with global latents, as Pyro's tutorials write them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.distributions import constraints


class BayesianRegression(PyroModule):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = PyroModule[nn.Linear](in_features, out_features)
        self.linear.weight = PyroSample(
            dist.Normal(0.0, 1.0).expand([out_features, in_features]).to_event(2)
        )
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([out_features]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def bayesian_regression():
    x = torch.randn(30, 3)
    y = x @ torch.tensor([1.0, -0.5, 0.2]) + 0.5 * torch.randn(30)
    model = BayesianRegression(3, 1)
    return model, AutoDiagonalNormal(model), (x, y)


def logistic_model(X, y, size=None):
    """Weights that all data share; of a minibatch the plate knows the size of the whole."""
    w = pyro.sample("w", dist.Normal(torch.zeros(X.shape[-1]), torch.ones(X.shape[-1])).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", 60, subsample_size=len(X)):
        pyro.sample("y", dist.Bernoulli(logits=X @ w + b), obs=y)


def logistic_guide(X, y, size=None):
    dim = X.shape[-1]
    w_loc = pyro.param("w_loc", torch.zeros(dim))
    w_scale = pyro.param("w_scale", 0.3 * torch.ones(dim), constraint=constraints.positive)
    pyro.sample("w", dist.Normal(w_loc, w_scale).to_event(1))
    b_loc = pyro.param("b_loc", torch.tensor(0.0))
    b_scale = pyro.param("b_scale", torch.tensor(0.3), constraint=constraints.positive)
    pyro.sample("b", dist.Normal(b_loc, b_scale))


def logistic_regression():
    X = torch.randn(60, 3)
    y = torch.bernoulli(torch.sigmoid(X @ torch.tensor([1.0, -1.0, 0.5])))
    return logistic_model, logistic_guide, (X, y)


def schools_model(y, sigma):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("J", 8):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def schools_data():
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return y, sigma


def eight_schools():
    return schools_model, AutoMultivariateNormal(schools_model), schools_data()


def rbf(X, variance, lengthscale):
    return variance * torch.exp(-0.5 * ((X[:, None] - X[None]) / lengthscale) ** 2)


def gp_model(X, y):
    """The function at the inputs is one latent of all data."""
    variance = pyro.param("variance", torch.tensor(1.0), constraint=constraints.positive)
    lengthscale = pyro.param("lengthscale", torch.tensor(0.7), constraint=constraints.positive)
    noise = pyro.param("noise", torch.tensor(0.4), constraint=constraints.positive)
    K = rbf(X, variance, lengthscale) + 1e-5 * torch.eye(len(X))
    f = pyro.sample("f", dist.MultivariateNormal(torch.zeros(len(X)), K))
    with pyro.plate("points", len(X)):
        pyro.sample("y", dist.Normal(f, noise), obs=y)


def gp_guide(X, y):
    loc = pyro.param("f_loc", torch.zeros(len(X)))
    scale_tril = pyro.param(
        "f_scale_tril", 0.3 * torch.eye(len(X)), constraint=constraints.lower_cholesky
    )
    pyro.sample("f", dist.MultivariateNormal(loc, scale_tril=scale_tril))


def gaussian_process():
    X = torch.linspace(0.0, 3.0, 12)
    y = torch.sin(2 * X) + 0.3 * torch.randn(12)
    return gp_model, gp_guide, (X, y)


def radon_model(county, floor, log_radon=None):
    num_counties = 5
    mu_a = pyro.sample("mu_a", dist.Normal(0.0, 5.0))
    sigma_a = pyro.sample("sigma_a", dist.HalfCauchy(5.0))
    b = pyro.sample("b", dist.Normal(0.0, 5.0))
    eps = pyro.sample("eps", dist.HalfCauchy(5.0))
    with pyro.plate("counties", num_counties):
        a = pyro.sample("a", dist.Normal(mu_a, sigma_a))
    with pyro.plate("houses", len(county)):
        radon_est = a[county] + b * floor
        return pyro.sample("radon", dist.Normal(radon_est, eps), obs=log_radon)


def radon():
    county = torch.arange(30) % 5
    floor = (torch.rand(30) > 0.7).to(torch.get_default_dtype())
    log_radon = 1.0 + 0.3 * torch.randn(5)[county] - 0.6 * floor + 0.5 * torch.randn(30)
    return radon_model, AutoNormal(radon_model), (county, floor, log_radon)
