"""Do the data of a density lie on levels?"""

import pyro.distributions as dist
import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.inference.run.levels import LevelSearch, measure_of_data
from pyro_dgm.inference.sites.measures import Measure

ON_LEVELS = {
    "integers": lambda: torch.randint(3, (500, 2)).double(),
    "few integers": lambda: torch.tensor([[0.0, 1.0, 2.0]]),
    "booleans": lambda: torch.rand(50, 2) < 0.5,
    "large integers": lambda: torch.randint(10**6, (500, 2)).double(),
    "grey levels in [0, 1]": lambda: torch.randint(256, (500, 2)).float() / 255,
    "shifted and scaled levels": lambda: (torch.randint(16, (100, 2)).double() - 7.3) / 2.17,
    "few grey levels": lambda: torch.randint(256, (90, 4)) / 255,
    "two decimals": lambda: torch.randn(1000, 2).mul(100).round() / 100,
}
CONTINUOUS = {
    "normal": lambda: torch.randn(500, 2),
    "normal in float32": lambda: torch.randn(500, 2).float(),
    "levels with noise": lambda: torch.randint(3, (500, 2)) + torch.rand(500, 2),
    "integers but for one": lambda: torch.cat([torch.arange(20.0), torch.tensor([0.5])])[:, None],
    "one datum over and over": lambda: torch.randn(1, 5).expand(100, 5),
    "a grid of points": lambda: torch.linspace(-1, 1, 101)[:, None],
    "zeros": lambda: torch.zeros(5, 2),
    "without data": lambda: torch.zeros(0, 2),
}


def found_in(x, rows=20):
    search = LevelSearch()
    for block in x.split(rows):
        search.add_values(block)
    return search.found


@pytest.mark.parametrize("name", ON_LEVELS)
def test_levels_are_found_whatever_their_unit(name):
    assert found_in(ON_LEVELS[name]())


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_data_are_not_on_levels(name):
    assert not found_in(CONTINUOUS[name]())


def test_a_density_of_data_on_levels_is_told_and_a_mass_is_not():
    x = torch.randint(2, (50, 3)).double()
    density = dgm.DensityModel(dgm.Flow(dgm.StandardNormal(3), dgm.maf(3, layers=1)))
    assert measure_of_data(density, (x,)) is Measure.ON_LEVELS
    assert measure_of_data(density, (torch.randn(50, 3),)) is Measure.DENSITY
    mass = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Bernoulli(dgm.mlp(1, 3)))
    assert measure_of_data(mass, (x,)) is Measure.MASS
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(3, 2))
    vae = dgm.VAE(dgm.StandardNormal(1), dgm.Normal(dgm.mlp(1, 3)), encoder, dgm.UnitUniform())
    assert measure_of_data(vae.model, (x,)) is Measure.MASS
