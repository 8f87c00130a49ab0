"""Posteriors of one number, exact by quadrature."""

import pyro
import pyro.distributions as dist
import torch
from toys import Written

import pyro_dgm as dgm


def one_number(law, scale=0.4):
    """x ~ N(z, s²), z of any law on a line: not conjugate."""

    def run(program, x=None):
        with dgm.data_plate(x):
            z = pyro.sample("z", law())
            return pyro.sample("x", dist.Normal(z, scale), obs=x)

    return Written(run)


def quadrature(law, x, grid, scale=0.4):
    """Log evidence, mean and variance of the posterior of `one_number` for every datum, on a fine grid."""
    log_joint = law().log_prob(grid)[:, None] + dist.Normal(grid[:, None], scale).log_prob(x)
    weight = log_joint.softmax(0)
    mean = (weight * grid[:, None]).sum(0)
    log_evidence = log_joint.logsumexp(0) + (grid[1] - grid[0]).log()
    return log_evidence, mean, (weight * grid[:, None].square()).sum(0) - mean.square()


LAWS = {
    "mixture": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.3, 0.7])),
            dist.Normal(torch.tensor([-0.4, 0.5]), torch.tensor([0.2, 0.6])),
        ),
        (-8, 8),
    ),
    "student": (lambda: dist.StudentT(4.0, 0.0, 0.5), (-15, 15)),
    "gamma": (lambda: dist.Gamma(2.0, 3.0), (0, 15)),
    "beta": (lambda: dist.Beta(2.0, 1.5), (0, 1)),
    "lognormal": (lambda: dist.LogNormal(-0.5, 0.7), (0, 40)),
    "uniform": (lambda: dist.Uniform(-0.5, 1.5), (-0.5, 1.5)),
}


def nodes(low, high, num=200_000):
    edge = torch.linspace(low, high, num + 1)
    return (edge[1:] + edge[:-1]) / 2
