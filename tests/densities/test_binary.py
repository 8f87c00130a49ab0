"""Zeros and ones of every dtype under our likelihoods, on every road, Pyro's own losses among them."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyro_dgm as dgm

DTYPES = (torch.bool, torch.uint8, torch.int8, torch.int64, torch.float32, torch.float64)
LIKELIHOODS = {
    "bernoulli": lambda: dgm.Bernoulli(dgm.mlp(2, 3)),
    "categorical": lambda: dgm.Categorical(dgm.mlp(2, 6), levels=2),
    "binomial": lambda: dgm.Binomial(dgm.mlp(2, 3), 1),
    "poisson": lambda: dgm.Poisson(dgm.mlp(2, 3)),
    "negative_binomial": lambda: dgm.NegativeBinomial(dgm.mlp(2, 6)),
    "zero_inflated": lambda: dgm.ZeroInflatedPoisson(dgm.mlp(2, 6)),
    "levels": lambda: dgm.DiscretizedLogistic(dgm.mlp(2, 6), levels=300),
    "mixture of levels": lambda: dgm.DiscretizedLogisticMixture(dgm.mlp(2, 18), 300, 2),
    "continuous_bernoulli": lambda: dgm.ContinuousBernoulli(dgm.mlp(2, 3)),
}
likelihoods = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=list(LIKELIHOODS))


def vae_of(make):
    return dgm.VAE(dgm.StandardNormal(2), make(), dgm.Conditional(dist.Normal, dgm.mlp(3, 4)))


def by_dtype(figure, x):
    """A figure of the same data in every dtype, under one seed."""
    figures = []
    for dtype in DTYPES:
        torch.manual_seed(3)
        figures.append(torch.as_tensor(figure(x.to(dtype)), dtype=torch.float64))
    return torch.stack(figures)


@likelihoods
@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
@pytest.mark.filterwarnings("ignore::pyro_dgm.diagnostics.IntegerWarning")
def test_every_road_gives_one_figure_for_one_set_of_data(make, dtype):
    vae, x = vae_of(make), torch.randint(0, 2, (5, 3))
    elbo = dgm.ELBO(vae.model, vae.guide)
    pyros = dgm.PyroObjective(vae.model, vae.guide, Trace_ELBO(max_plate_nesting=1))
    roads = (
        lambda data: dgm.nll(vae.model, vae.guide, data, num=4).mean,
        lambda data: elbo(data).detach(),
        lambda data: pyros(data).detach(),
        lambda data: SVI(
            vae.model, vae.guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO()
        ).evaluate_loss(data),
    )
    for road in roads:
        figures = by_dtype(road, x)
        torch.testing.assert_close(figures, figures[:1].expand_as(figures), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_training_takes_bytes(dtype):
    x = torch.randint(0, 256, (16, 3), dtype=torch.uint8)
    x[0, 0] = 255
    losses = []
    for data in (x, x.long(), x.float()):
        torch.manual_seed(0)
        same = vae_of(LIKELIHOODS["poisson"])
        trainer = dgm.SVITrainer(dgm.ELBO(same.model, same.guide))
        losses.append(trainer.fit(data, epochs=1, progress=False).rows[-1]["train_nelbo"])
    assert torch.tensor(losses).isfinite().all()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_a_byte_of_255_under_300_levels_is_not_level_43(dtype):
    likelihood = dgm.DiscretizedLogistic(nn.Identity(), levels=300)
    law = likelihood(torch.tensor([[120.0, 3.0]]))
    byte = torch.tensor([[255]], dtype=torch.uint8)
    assert law.log_prob(byte) == law.log_prob(byte.float())
    model = dgm.DensityModel(dgm.DiscretizedLogistic(_Constant(), levels=300))
    dgm.preflight(model, dgm.EmptyGuide(), byte)


class _Constant(nn.Module):
    def forward(self, *_):
        return torch.tensor([120.0, 3.0])
