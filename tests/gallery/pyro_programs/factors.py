"""Factor models: subsampling inside the program, a row of parameters for each datum, Pyro's own transforms."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from torch import nn
from torch.distributions import constraints


class PPCA:
    """The program takes all data and looks at a random part of them at each step."""

    def __init__(self, num_data, x_dim=4, z_dim=2, subsample_size=None):
        self.num_data, self.subsample_size = num_data, subsample_size
        self.x_dim, self.z_dim = x_dim, z_dim
        self.encoder = nn.Linear(x_dim, 2 * z_dim)

    def model(self, data):
        W = pyro.param("W", lambda: 0.5 * torch.randn(self.z_dim, self.x_dim))
        mean = pyro.param("mean", torch.zeros(self.x_dim))
        sigma = pyro.param("sigma", torch.tensor(0.7), constraint=constraints.positive)
        with pyro.plate("data", len(data), subsample_size=self.subsample_size) as idx:
            z = pyro.sample("z", dist.Normal(torch.zeros(self.z_dim), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W + mean, sigma).to_event(1), obs=data[idx])

    def guide(self, data):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(data), subsample_size=self.subsample_size) as idx:
            loc, log_scale = self.encoder(data[idx]).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def ppca():
    data = torch.randn(40, 2) @ torch.randn(2, 4) + 0.5 * torch.randn(40, 4)
    program = PPCA(40, subsample_size=10)
    return program.model, program.guide, (data,)


def mean_field_model(data):
    """Counts with a rate for each datum."""
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Poisson(z.exp()), obs=data)


def mean_field_guide(data):
    loc = pyro.param("z_loc", torch.zeros(20))
    scale = pyro.param("z_scale", torch.ones(20), constraint=constraints.positive)
    with pyro.plate("data", len(data)):
        pyro.sample("z", dist.Normal(loc, scale))


def local_mean_field():
    return mean_field_model, mean_field_guide, (torch.poisson(torch.full((20,), 3.0)),)


class FlowVAE(nn.Module):
    """Pyro's splines in the prior, its conditional autoregressive transform in the guide."""

    def __init__(self, x_dim=4, z_dim=2):
        super().__init__()
        self.z_dim = z_dim
        self.prior_flow = T.spline_coupling(z_dim, hidden_dims=[8], count_bins=4)
        self.posterior_flow = T.conditional_affine_autoregressive(z_dim, 6, hidden_dims=[8])
        self.encoder = nn.Sequential(nn.Linear(x_dim, 12), nn.Tanh(), nn.Linear(12, 2 * z_dim + 6))
        self.decoder = nn.Sequential(nn.Linear(z_dim, 12), nn.Tanh(), nn.Linear(12, x_dim))

    def model(self, x):
        pyro.module("flow_vae", self)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(self.z_dim), torch.ones(self.z_dim)).to_event(1)
            z = pyro.sample("z", dist.TransformedDistribution(base, [self.prior_flow]))
            pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, log_scale, context = self.encoder(x).split([self.z_dim, self.z_dim, 6], -1)
            base = dist.Normal(loc, log_scale.exp()).to_event(1)
            flow = self.posterior_flow.condition(context)
            pyro.sample("z", dist.TransformedDistribution(base, [flow]))


def transform_modules():
    x = torch.randn(32, 4)
    program = FlowVAE()
    return program.model, program.guide, (x,)
