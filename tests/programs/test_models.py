"""Models refuse the flows that a model can't use."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from cases import ONE_WAY, over
from torch import nn

import pyro_dgm as dgm

ROLES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "prior": lambda flow: dgm.LatentVariableModel(flow, dgm.Normal(dgm.mlp(4, 3))),
    "likelihood": lambda flow: dgm.LatentVariableModel(dgm.StandardNormal(3), flow),
    "density": dgm.DensityModel,
}
HOLDERS: dict[str, Callable[[dgm.flows.Bijector], nn.Module]] = {
    "flow": lambda bijector: dgm.Flow(dgm.StandardNormal(4), bijector),
    "flow_between_layers": lambda bijector: dgm.Flow(
        dgm.StandardNormal(4), [dgm.flows.Permutation(4), bijector]
    ),
    "inverse": lambda bijector: dgm.Flow(dgm.StandardNormal(4), [dgm.Inverse(bijector)]),
    "base_of_a_flow": lambda bijector: dgm.Flow(
        dgm.Flow(dgm.StandardNormal(4), bijector), dgm.realnvp(4, 2)
    ),
    "vamp_prior": lambda bijector: dgm.VampPrior(
        dgm.Flow(dgm.Conditional(dist.Normal, nn.Linear(3, 8)), bijector), torch.randn(5, 3)
    ),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(**over(ONE_WAY))
def test_a_bijector_that_goes_one_way_is_refused_by_role_with_the_fix(build, role):
    flow = dgm.Flow(dgm.StandardNormal(4), build().bijector)
    message = (
        rf"{role}: expected bijectors that go both ways, since a {role} scores given points and generates; "
        r"got \w+, which serves guides alone\. Fix: realnvp, spline_coupling or maf"
    )
    with pytest.raises(ValueError, match=message):
        ROLES[role](flow)


@pytest.mark.parametrize("holder", HOLDERS)
def test_it_is_found_wherever_it_stands(holder):
    with pytest.raises(ValueError, match="prior: expected bijectors that go both ways"):
        ROLES["prior"](HOLDERS[holder](dgm.flows.planar(4, 1)))


def test_a_vae_refuses_it_as_prior_and_takes_it_as_guide():
    flow = dgm.Flow(dgm.StandardNormal(4), dgm.flows.planar(4, 2))
    encoder = dgm.Flow(dgm.Conditional(dist.Normal, dgm.mlp(3, 8)), dgm.flows.planar(4, 2, 3))
    with pytest.raises(ValueError, match="prior: expected bijectors that go both ways"):
        dgm.VAE(flow, dgm.Normal(dgm.mlp(4, 3)), encoder)
    vae = dgm.VAE(dgm.StandardNormal(4), dgm.Normal(dgm.mlp(4, 3)), encoder)
    dgm.ELBO(vae.model, vae.guide)(torch.randn(5, 3)).backward()


@pytest.mark.parametrize("stack", [dgm.realnvp, dgm.maf, dgm.iaf, dgm.spline_coupling])
@pytest.mark.parametrize("role", ROLES)
def test_what_goes_both_ways_is_taken_even_if_one_way_is_slow(stack, role):
    flow = dgm.Flow(dgm.StandardNormal(4), stack(4, 2))
    assert flow in list(ROLES[role](flow).modules())


def test_the_representation_shows_the_settings():
    model = dgm.LatentVariableModel(
        dgm.StandardNormal(3), dgm.Normal(dgm.mlp(3, 4)), size=9, latent="code"
    )
    assert "size=9, latent='code', observed='x'" in repr(model)
    assert "StandardNormal(3)" in repr(model)
    assert "size=None, observed='y'" in repr(dgm.DensityModel(dgm.StandardNormal(3), observed="y"))
