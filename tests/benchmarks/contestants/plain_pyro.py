"""The models as one writes them in Pyro: two functions and `pyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineAutoregressive, ConditionalAffineAutoregressive
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from pyro.nn import AutoRegressiveNN, ConditionalAutoRegressiveNN
from torch import Tensor, nn
from torch.nn.functional import softplus

from .networks import conv_networks, dense, mlp_networks
from .sizes import Contestant, Size, count_in

Pair = tuple[Callable[[Tensor], Any], Callable[[Tensor], Any], nn.Module]


def svi_stepping(model: Any, guide: Any, size: Size, parameters: int) -> Contestant:
    """`SVI.step` under the ELBO, or the importance-weighted bound of K draws."""
    pyro.enable_validation(False)
    x = size.data()
    loss: Any = Trace_ELBO()
    if size.particles > 1:
        loss = RenyiELBO(
            alpha=0,
            num_particles=size.particles,
            vectorize_particles=True,
            max_plate_nesting=1,
        )
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss)
    first = svi.evaluate_loss(x) / size.batch
    return Contestant(lambda: svi.step(x), parameters, first)


def stepping(pair: Callable[[Size], Pair], size: Size) -> Contestant:
    model, guide, modules = pair(size)
    return svi_stepping(model, guide, size, count_in(modules))


def mlp(size: Size) -> Pair:
    return gaussian(size, *mlp_networks(size))


def conv(size: Size) -> Pair:
    return gaussian(size, *conv_networks(size))


iwae = mlp  # under another bound


def gaussian(size: Size, encoder: nn.Module, decoder: nn.Module) -> Pair:
    """Standard normal prior, diagonal normal guide."""

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            base = dist.Normal(torch.zeros(size.latent), torch.ones(size.latent)).to_event(1)
            z = pyro.sample("z", base)
            p_x = dist.Bernoulli(logits=decoder(z)).to_event(len(size.event))
            pyro.sample("x", p_x, obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", diagonal_normal(encoder(x)))

    return model, guide, nn.ModuleList([encoder, decoder])


def diagonal_normal(raw: Tensor) -> dist.Distribution:
    loc, raw_scale = raw.chunk(2, dim=-1)
    return dist.Normal(loc, softplus(raw_scale) + 1e-6).to_event(1)


def flows(size: Size) -> Pair:
    """Pyro's own transforms: a MAF prior, and an IAF guide that reads the features of the encoder."""
    decoder = dense(size.latent, size.hidden, size.dim)
    embed = nn.Sequential(dense(size.dim, size.hidden, size.hidden), nn.SiLU())
    head = nn.Linear(size.hidden, 2 * size.latent)
    prior, posterior = maf_layers(size), iaf_layers(size)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        pyro.module("prior", prior)
        base = dist.Normal(torch.zeros(size.latent), torch.ones(size.latent)).to_event(1)
        p_z = dist.TransformedDistribution(base, [layer.inv for layer in prior])
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", p_z)
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        for name, module in (("embed", embed), ("head", head), ("posterior", posterior)):
            pyro.module(name, module)
        features = embed(x)
        layers = [layer.condition(features) for layer in posterior]
        q_z = dist.TransformedDistribution(diagonal_normal(head(features)), layers)
        with pyro.plate("data", len(x)):
            pyro.sample("z", q_z)

    return model, guide, nn.ModuleList([decoder, embed, head, prior, posterior])


def maf_layers(size: Size) -> nn.ModuleList:
    layers = nn.ModuleList()
    for number in range(size.layers):
        net = AutoRegressiveNN(
            size.latent,
            [size.units],
            permutation=order(size.latent, number),
            nonlinearity=nn.SiLU(),
        )
        layers.append(AffineAutoregressive(net))
    return layers


def iaf_layers(size: Size) -> nn.ModuleList:
    layers = nn.ModuleList()
    for number in range(size.layers):
        net = ConditionalAutoRegressiveNN(
            size.latent,
            size.hidden,
            [size.units],
            permutation=order(size.latent, number),
            nonlinearity=nn.SiLU(),
        )
        layers.append(ConditionalAffineAutoregressive(net))
    return layers


def order(dim: int, number: int) -> Tensor:
    """It alternates from layer to layer."""
    return torch.arange(dim).flip(0) if number % 2 else torch.arange(dim)
