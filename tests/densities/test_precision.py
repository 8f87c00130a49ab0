"""The dtype of a distribution, through all that it is made of, and values cast to it."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.densities.precision import (
    as_observed,
    dtype_of,
    in_float32,
    in_float64,
    network_output,
    without_autocast,
)

DOUBLE = torch.tensor([0.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(
    "law",
    [
        dist.Normal(DOUBLE, 1.0),
        dist.Normal(DOUBLE, 1.0).to_event(1),
        dist.Normal(DOUBLE, 1.0).mask(mask=True),
        dist.Normal(DOUBLE, 1.0).expand([3, 2]),
        dist.ExpandedDistribution(dist.Bernoulli(DOUBLE), torch.Size([3, 2])),
        dist.TransformedDistribution(dist.Normal(DOUBLE, 1.0), [dist.transforms.ExpTransform()]),
        dist.TransformedDistribution(
            dist.Normal(torch.zeros(2, dtype=torch.float32), torch.ones(2, dtype=torch.float32)),
            [dist.transforms.AffineTransform(DOUBLE, 1.0)],
        ),
        dist.MixtureSameFamily(dist.Categorical(DOUBLE), dist.Normal(DOUBLE, 1.0)),
        dist.Categorical(DOUBLE),
        dist.Dirichlet(DOUBLE),
        dist.ZeroInflatedPoisson(DOUBLE, gate=DOUBLE),
        dist.Binomial(torch.tensor(3), logits=DOUBLE),
        dist.Delta(DOUBLE),
        dgm.distributions.Discretized(dist.Normal(DOUBLE, 1.0), 4),
    ],
    ids=lambda law: type(law).__name__,
)
@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_the_dtype_of_a_distribution_is_that_of_its_parameters(law, dtype):
    assert dtype_of(law) == torch.float64
    assert as_observed(law, torch.tensor([3], dtype=torch.uint8)).dtype == torch.float64


@both_dtypes
def test_a_distribution_without_parameters_has_the_default_dtype(dtype):
    assert dtype_of(dist.Unit(torch.tensor([1]))) == dtype


def test_floats_stay_the_very_same():
    x = torch.randn(3)
    assert as_observed(dist.Normal(DOUBLE, 1.0), x) is x
    law = dist.Normal(DOUBLE, 1.0).to_event(1)
    assert in_float32(law) is law
    assert network_output(x) is x


def test_a_copy_in_another_dtype_leaves_the_distribution_as_it_is():
    law = dist.Normal(torch.zeros(2).bfloat16(), torch.ones(2).bfloat16()).to_event(1)
    assert dtype_of(in_float32(law)) == torch.float32
    assert dtype_of(in_float64(law)) == torch.float64
    assert dtype_of(law) == torch.bfloat16
    assert in_float32(law).event_shape == law.event_shape


def test_a_transform_and_its_inverse_that_hold_each_other_are_met_once():
    transform = dist.transforms.AffineTransform(DOUBLE, 1.0)
    transform.partner = transform
    law = dist.TransformedDistribution(dist.Normal(DOUBLE, 1.0), [transform])
    assert dtype_of(law) == torch.float64
    (twin,) = in_float64(law).transforms
    assert twin.partner is twin
    assert twin is not transform


def test_no_operation_is_autocast_inside():
    x = torch.ones(2, 2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast():
            assert (x @ x).dtype == torch.float32


def test_a_parameter_is_handed_over_as_a_copy():
    parameter = nn.Parameter(torch.zeros(2))
    for raw in (parameter, parameter.expand(3, 2)):
        given = network_output(raw)
        with torch.no_grad():
            parameter.fill_(1.0)
        assert bool((given == 0).all())
        with torch.no_grad():
            parameter.fill_(0.0)
