"""The estimator that pushes the score of a flow along its layers, against the one that inverts the flow."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from conftest import in_float64
from toys import loss_and_grad, toy_vae

import pyro_dgm as dgm


def flow_vae(stack):
    encoder = dgm.Flow(dgm.Conditional(dist.Normal, dgm.mlp(3, 4)), stack, embed=dgm.mlp(4, 8, 3))
    vae = dgm.VAE(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 4)), encoder)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return vae


STACKS = {
    "realnvp": lambda: dgm.realnvp(2, layers=3, context=3, hidden=(8,)),
    "iaf": lambda: dgm.iaf(2, layers=2, context=3, hidden=(8,)),
    "spline_iaf": lambda: dgm.spline_iaf(2, layers=2, context=3, hidden=(8,)),
}


@in_float64
@pytest.mark.parametrize("num_particles", [1, 4])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
@pytest.mark.filterwarnings("ignore::pyro_dgm.flows.DirectionWarning")
def test_value_and_gradient_are_those_of_sticking_the_landing(stack, num_particles):
    vae, x = flow_vae(stack()), torch.randn(5, 4)
    found = []
    for estimator in (dgm.training.PathGradient(), dgm.StickingTheLanding()):
        objective = dgm.IWELBO(vae.model, vae.guide, num_particles, estimator=estimator)
        found.append(loss_and_grad(objective, x))
    (loss, gradients), (expected, slopes) = found
    torch.testing.assert_close(loss, expected)
    for name, slope in slopes.items():
        torch.testing.assert_close(gradients[name], slope, rtol=1e-6, atol=1e-6, msg=name)


def test_a_posterior_that_samples_in_one_pass_is_never_inverted(recwarn):
    vae = flow_vae(STACKS["iaf"]())
    objective = dgm.IWELBO(vae.model, vae.guide, 1, estimator=dgm.training.PathGradient())
    dgm.SVITrainer(objective).fit(torch.randn(20, 4), epochs=1, batch_size=10)
    assert not [w for w in recwarn if isinstance(w.message, dgm.flows.DirectionWarning)]


def test_a_guide_that_is_no_flow_is_refused():
    vae = toy_vae()
    objective = dgm.IWELBO(vae.model, vae.guide, 1, estimator=dgm.training.PathGradient())
    with pytest.raises(ValueError, match=r"PathGradient: expected .* drawn by a Flow, got .*Fix: "):
        objective.preflight(torch.zeros(3, 3))
