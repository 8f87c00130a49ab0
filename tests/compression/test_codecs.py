"""Codecs: each is undone exactly, and takes the bits that its distribution says."""

from math import log

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.compression.codecs import codec_of
from pyro_dgm.compression.grids import Grid, Integers
from pyro_dgm.compression.stack import Reservoir, Stack

B, D = 40, 3


def noisy(module, scale=0.1):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn_like(parameter)
    return module


def normal():
    return dist.Normal(torch.randn(B, D), torch.rand(B, D) + 0.1).to_event(1)


def covariance():
    scale_tril = torch.tril(torch.randn(B, D, D), -1) + torch.diag_embed(torch.rand(B, D) + 0.3)
    return dist.MultivariateNormal(torch.randn(B, D), scale_tril=scale_tril)


def low_rank():
    return dist.LowRankMultivariateNormal(
        torch.randn(B, D), torch.randn(B, D, 1), torch.rand(B, D) + 0.1
    )


def flow(stack, base=None):
    return noisy(dgm.Flow(base or dgm.StandardNormal(D), stack))().expand((B,))


CONTINUOUS = {
    "normal": normal,
    "scalar": lambda: dist.Normal(torch.randn(B), 0.5),
    "laplace": lambda: dist.Laplace(torch.randn(B, D), 0.5).to_event(1),
    "covariance": covariance,
    "low rank": low_rank,
    "mixture": lambda: noisy(dgm.MixturePrior(D, 5))().expand((B,)),
    "maf": lambda: flow(dgm.maf(D, layers=2)),
    "iaf": lambda: flow(dgm.iaf(D, layers=2)),
    "couplings": lambda: flow(dgm.realnvp(D, layers=4)),
    "splines": lambda: flow(dgm.spline_coupling(D, layers=2)),
    "matrix": lambda: flow([dgm.flows.LULinear(D)]),
    "flow over a mixture": lambda: flow(dgm.maf(D, layers=1), dgm.MixturePrior(D, 4)),
}
DISCRETE = {
    "bernoulli": lambda: dist.Bernoulli(logits=4 * torch.randn(B, D)).to_event(1),
    "categorical": lambda: dist.Categorical(logits=torch.randn(B, D, 10)).to_event(1),
    "binomial": lambda: dist.Binomial(9, logits=torch.randn(B, D)).to_event(1),
    "levels": lambda: dgm.distributions.Discretized(
        dist.Logistic(5 * torch.rand(B, D), 1.0), 10
    ).to_event(1),
    "image": lambda: dist.Categorical(logits=torch.randn(B, 1, 2, 2, 10)).to_event(3),
}


def grid_around(distribution):
    draws = distribution.sample((500,))
    return Grid.around(draws.min().item(), draws.max().item(), 28)


def bits_of(codec, cells, seed=0):
    """What a push adds, after which a pop has everything as it was."""
    stack = Stack.random(Reservoir(B, seed))
    codec.pop(stack)  # bits to work with
    before = stack.bits - stack.initial_bits
    codec.push(stack, cells)
    added = stack.bits - stack.initial_bits - before
    assert torch.equal(codec.pop(stack), cells)
    assert stack.bits - stack.initial_bits == pytest.approx(before, abs=1e-6)
    return added


@pytest.mark.parametrize("name", CONTINUOUS)
def test_real_numbers_take_the_bits_of_their_density(name):
    """Of a mean of 40 data: what coding finer than the cells would add is below a hundredth of a bit per number."""
    with torch.no_grad():
        distribution = CONTINUOUS[name]()
        value = distribution.sample()
        grid = grid_around(distribution)
        cells = ((value - grid.low) / grid.width).floor().long()
        codec = codec_of(distribution, grid)
        num = cells.numel()
        density = distribution.log_prob(grid.values(cells)).sum().item()
        expected = -density / log(2) - num * np.log2(grid.width)
        runs = [bits_of(codec, cells, seed) for seed in range(3)]
    assert np.mean(runs) / num == pytest.approx(expected / num, abs=0.02)


@pytest.mark.parametrize("name", DISCRETE)
def test_integers_take_the_bits_of_their_mass(name):
    distribution = DISCRETE[name]()
    value = distribution.sample()
    size = 2 if name == "bernoulli" else 10
    added = bits_of(codec_of(distribution, Integers(size)), value.long())
    expected = -distribution.log_prob(value).sum().item() / log(2)
    assert added == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_what_comes_off_random_bits_has_the_distribution(name):
    """The mean of 400 log densities lies within five standard errors of that of other draws."""
    with torch.no_grad():
        distribution = CONTINUOUS[name]()
        grid = grid_around(distribution)
        codec = codec_of(distribution, grid)
        stack = Stack.random(Reservoir(B, 1))
        popped = [distribution.log_prob(grid.values(codec.pop(stack))) for _ in range(10)]
        drawn = distribution.log_prob(distribution.sample((500,)))
    found = torch.stack(popped)
    error = drawn.var(0).mean().sqrt().item() / found.numel() ** 0.5
    assert abs(found.mean().item() - drawn.mean().item()) < 5 * error


FAMILIES = [dist.Normal, dist.Laplace, dist.Logistic]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("z", [-7.9, -6.5, 6.5, 7.9])
def test_numbers_in_both_tails_take_the_bits_of_their_density(family, z):
    """Of a thin cell, whose mass is below what float64 tells from 1."""
    distribution = family(torch.zeros(B, D), torch.ones(B, D)).to_event(1)
    grid = Grid(-16.0, 2.0**-27, 32)
    cells = torch.full((B, D), int((z - grid.low) / grid.width))
    density = distribution.log_prob(grid.values(cells)).sum().item()
    expected = -density / log(2) + B * D * 27
    assert bits_of(codec_of(distribution, grid), cells) == pytest.approx(expected, rel=1e-4)


def test_a_number_in_the_farthest_tail_can_be_coded():
    distribution = dist.Normal(torch.zeros(B, D), 1e-3).to_event(1)
    grid = Grid.around(-16.0, 16.0, 28)
    cells = torch.full((B, D), grid.size - 1)
    assert bits_of(codec_of(distribution, grid), cells) < B * D * 28 * 24


def test_cells_of_no_mass_can_be_coded():
    distribution = dist.Categorical(torch.tensor([0.5, 0.5, 0.0]).expand(B, D, 3)).to_event(1)
    bits_of(codec_of(distribution, Integers(3)), torch.full((B, D), 2))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dist.StudentT(torch.full((B, D), 3.0)).to_event(1), "with a cdf"),
        (lambda: dist.Dirichlet(torch.ones(B, D)), "numbers that can be coded"),
        (lambda: flow(dgm.maf(D, layers=1)), "a mass function, got the density"),
    ],
    ids=["no cdf", "no numbers", "a density of integers"],
)
def test_a_distribution_without_a_code_is_refused(make, words):
    space = Integers(4) if "mass" in words else Grid.around(-1.0, 1.0, 8)
    with pytest.raises(NotImplementedError, match=words):
        codec_of(make(), space)


def test_a_grid_covers_its_interval_twice_with_exact_edges():
    grid = Grid.around(-1.3, 2.9, 10)
    assert grid.low <= -3.3
    assert grid.low + grid.size * grid.width >= 4.9
    assert np.log2(grid.width) == round(np.log2(grid.width))
