"""What every part of a program asks of its arguments: one mistake has one answer, where it is handed over."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_dgm as dgm
from pyro_dgm.programs.requirements import (
    require_event_dim,
    require_levels,
    require_network,
    require_tensor,
)


def vae() -> dgm.VAE:
    encoder = dgm.Conditional(dist.Normal, dgm.mlp(9, 4))
    return dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 9)), encoder)


NO_NETWORKS = {
    "Normal": lambda: dist.Normal(0.0, 1.0),
    "VAE": vae,
    "LatentVariableModel": lambda: vae().model,
    "AmortizedGuide": lambda: vae().guide,
    "ModuleList": lambda: nn.ModuleList([nn.Linear(2, 3)]),
    "int": lambda: 9,
    "list": lambda: [2, 9],
}


@pytest.mark.parametrize("name", NO_NETWORKS)
def test_what_is_no_network_is_refused_with_the_fix(name):
    message = rf"Poisson: expected a network .* got {name}. Fix: Poisson\(mlp\(latent, hidden, out"
    with pytest.raises(TypeError, match=message):
        require_network("Poisson", NO_NETWORKS[name]())


def test_a_class_in_place_of_a_network_is_refused_with_the_fix():
    message = r"Poisson: expected a network, built, got the class Linear. Fix: Poisson\(Linear\("
    with pytest.raises(TypeError, match=message):
        require_network("Poisson", nn.Linear)


@pytest.mark.parametrize(
    "net", [nn.Linear(2, 3), nn.Sequential(), nn.Identity(), torch.relu, lambda z: z], ids=str
)
def test_modules_with_a_forward_and_functions_are_networks(net):
    require_network("Poisson", net)


def test_an_output_that_is_no_tensor_is_refused_with_the_fix():
    require_tensor("Poisson", torch.zeros(2))
    message = (
        r"Poisson: expected a network whose output is one tensor, got Normal. Fix: Poisson\(mlp"
    )
    with pytest.raises(TypeError, match=message):
        require_tensor("Poisson", dist.Normal(0.0, 1.0))


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_fewer_than_two_levels_are_refused_with_the_fix(levels):
    require_levels("Levels", 2)
    message = rf"Levels: expected at least 2 levels, got {levels}. Fix: levels=256 for bytes"
    with pytest.raises(ValueError, match=message):
        require_levels("Levels", levels)


def test_an_event_without_dims_is_refused_with_the_fix():
    require_event_dim("Poisson", 1)
    message = r"Poisson: expected event_dim >= 1, got 0. Fix: event_dim=1 for vectors"
    with pytest.raises(ValueError, match=message):
        require_event_dim("Poisson", 0)
