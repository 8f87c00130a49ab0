"""Eight schools, the example of data that share a draw, with its exact evidence and moments."""

from __future__ import annotations

from math import log

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

SCORES = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)
MOST, STEP = 300.0, 1e-3  # of the grid over tau


def eight_schools(y: Tensor, s: Tensor) -> None:
    """Effects of coaching in eight schools, non-centered."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0).to(y)))
    with pyro.plate("schools", len(y)):
        t = pyro.sample("t", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * t)
        pyro.sample("y", dist.Normal(theta, s), obs=y)


def exact_schools(y: Tensor, s: Tensor) -> tuple[float, dict[str, tuple[Tensor, Tensor]]]:
    """log p(y), and mean and sd of mu, tau and every theta, by a grid over tau, given which all is normal."""
    y, s = y.double(), s.double()
    tau = torch.arange(STEP / 2, MOST, STEP, dtype=torch.float64)[:, None]
    noise = s**2 + tau**2
    precision = 1 / 25 + (1 / noise).sum(-1, keepdim=True)
    mean_mu = (y / noise).sum(-1, keepdim=True) / precision
    # log p(y | tau) = log p(y | mu) + log p(mu) - log p(mu | y, tau), at mu = 0
    origin = torch.zeros((), dtype=torch.float64)
    log_p = dist.Normal(origin, noise.sqrt()).log_prob(y).sum(-1, keepdim=True)
    log_p = log_p + dist.Normal(origin, 5.0).log_prob(origin)
    log_p = log_p - dist.Normal(mean_mu, precision.rsqrt()).log_prob(origin)
    log_p = log_p + dist.HalfCauchy(torch.tensor(5.0).double()).log_prob(tau)
    weight = log_p.softmax(0)
    share = tau**2 / noise

    def moments(mean: Tensor, var: Tensor | float) -> tuple[Tensor, Tensor]:
        total = (weight * mean).sum(0)
        second = (weight * (var + mean**2)).sum(0)
        return total.squeeze(), (second - total**2).sqrt().squeeze()

    of_theta = share * y + (1 - share) * mean_mu
    return log_p.logsumexp(0).item() + log(STEP), {
        "mu": moments(mean_mu, 1 / precision),
        "tau": moments(tau, 0.0),
        "theta": moments(of_theta, share * s**2 + (1 - share) ** 2 / precision),
    }
