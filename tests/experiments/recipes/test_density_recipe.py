"""Flows on data: exact of real numbers, masses of integers."""

import pyro.distributions as dist
import pytest
import torch
from experiments.recipes.synthetic import synthetic

from pyro_dgm import ELBO, EmptyGuide, NoiseGuide
from pyro_dgm.experiments.recipes import encoders, layers
from pyro_dgm.experiments.recipes.density import Density, last_layer
from pyro_dgm.experiments.recipes.networks import Dense

NOISE = encoders.FlowNoise(layers=2, hidden=(8,), features=6)


def assert_trains(recipe, data):
    programs = recipe.build(data)
    objective = ELBO(programs.model, programs.guide)
    objective.preflight(*data.split("train"))
    objective(*data.split("train")).backward()
    assert all(p.grad.isfinite().all() for p in programs.parameters())
    return programs


@pytest.mark.parametrize("num_context", [0, 3], ids=["plain", "conditional"])
@pytest.mark.parametrize("kind", ["binary", "levels", "bytes", "counts", "real"])
@pytest.mark.parametrize("dequantizer", [encoders.Uniform(), NOISE], ids=["uniform", "flow"])
def test_a_flow_trains_on_every_kind_of_data(kind, dequantizer, num_context):
    recipe = Density(layers=2, hidden=(8,), dequantizer=dequantizer, network=Dense([8]))
    programs = assert_trains(recipe, synthetic(kind, (6,), num_context))
    is_real = kind == "real"
    assert isinstance(programs.guide, EmptyGuide if is_real else NoiseGuide)


@pytest.mark.parametrize(
    ("flow", "hidden"), [(layers.ImageRealNVP(1), (8,)), (layers.MultiscaleRealNVP(1), (8, 8))]
)
@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4)])
def test_flows_of_images_train_on_rows(flow, hidden, shape):
    assert_trains(Density(flow, 2, hidden), synthetic("bytes", shape))


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_a_young_flow_of_real_numbers_is_the_normal_of_the_training_data(shape):
    """All layers start as the identity, so that only the last one, in the unit of the data, is left."""
    data = synthetic("real", shape)
    programs = Density(layers.MAF(), 3, (8,)).build(data)
    loss = ELBO(programs.model, programs.guide)(data.train)
    dims = 0 if len(shape) == 1 else (0, 1)
    normal = dist.Normal(data.train.mean(dims), data.train.std(dims, correction=0))
    torch.testing.assert_close(loss, -normal.log_prob(data.train).sum(1).mean())


def test_the_masses_of_all_levels_sum_to_one():
    """By quadrature over [0, 5), the cells of all five levels, of a flow with random weights."""
    data = synthetic("levels", (1,))
    model = Density(layers.SplineMAF(), 2, (8,)).build(data).model.model
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    v = (torch.arange(200_000) + 0.5) / 200_000 * 5
    mass = model.density().log_prob(v[:, None]).exp().mean() * 5
    assert mass.item() == pytest.approx(1.0, abs=1e-3)  # α of `Levels` leaves 2e-5 outside


def test_a_column_without_a_spread_keeps_its_unit():
    data = synthetic("real", (3,))
    data.train[:, 1] = 7.0
    place = last_layer(data)
    assert place.scale_tril[1, 1] == 1.0
    assert place.loc[1] == 7.0
