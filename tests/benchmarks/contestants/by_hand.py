"""The models as one writes them in plain torch: a module whose forward is the loss in nats per datum."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from .networks import conv_networks, dense, mades, mlp_networks
from .sizes import Contestant, Size, count_in


class GaussianVAE(nn.Module):
    """Standard normal prior, diagonal normal posterior, Bernoulli likelihood."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = split(self.encoder(x))
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        kl = (0.5 * (z.square() - eps.square()) - scale.log()).sum()
        return (cross_entropy(self.decoder(z), x) + kl) / len(x)


class IWAE(GaussianVAE):
    """The same under the importance-weighted bound of K draws."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, particles: int):
        super().__init__(encoder, decoder)
        self.particles = particles

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = split(self.encoder(x))
        eps = torch.randn(self.particles, *loc.shape)
        z = loc + scale * eps
        logits = self.decoder(z)
        rec = binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        log_ratio = (0.5 * (eps.square() - z.square()) + scale.log()).sum(-1)
        log_weight = log_ratio - rec.sum(-1)
        return log(self.particles) - log_weight.logsumexp(0).mean()


class FlowVAE(nn.Module):
    """An IAF posterior over the features of an encoder or none, a MAF prior or a standard normal one."""

    def __init__(self, size: Size, *, prior: bool):
        super().__init__()
        self.decoder = dense(size.latent, size.hidden, size.dim)
        if prior:
            self.embed = nn.Sequential(dense(size.dim, size.hidden, size.hidden), nn.SiLU())
            self.head = nn.Linear(size.hidden, 2 * size.latent)
            self.posterior = mades(size, size.hidden)
            self.prior = mades(size)
        else:
            self.embed = nn.Sequential(nn.Linear(size.dim, size.hidden), nn.SiLU())
            self.head = nn.Linear(size.hidden, 2 * size.latent)
            self.posterior = mades(size)
            self.prior = nn.ModuleList()

    def forward(self, x: Tensor) -> Tensor:
        features = self.embed(x)
        loc, scale = split(self.head(features))
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        log_q = -0.5 * eps.square().sum() - scale.log().sum()
        for net in self.posterior:
            shift, log_scale = net(z, features)
            z = z * log_scale.exp() + shift
            log_q = log_q - log_scale.sum()
        base, log_det = z, 0.0
        for net in reversed(self.prior):
            shift, log_scale = net(base)
            base = base * log_scale.exp() + shift
            log_det = log_det + log_scale.sum()
        log_p = -0.5 * base.square().sum() + log_det
        return (cross_entropy(self.decoder(z), x) + log_q - log_p) / len(x)


class VampVAE(GaussianVAE):
    """A mixture of the posteriors of learned pseudo-inputs as the prior."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, pseudo_inputs: Tensor):
        super().__init__(encoder, decoder)
        self.pseudo_inputs = nn.Parameter(pseudo_inputs)

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = split(self.encoder(x))
        eps = torch.randn_like(loc)
        z = loc + scale * eps
        log_q = -(0.5 * (eps.square() + log(2 * pi)) + scale.log()).sum()
        locs, scales = split(self.encoder(self.pseudo_inputs))
        distance = (z[:, None] - locs) / scales
        log_normal = -(0.5 * (distance.square() + log(2 * pi)) + scales.log()).sum(-1)
        log_p = (log_normal.logsumexp(-1) - log(len(locs))).sum()
        return (cross_entropy(self.decoder(z), x) + log_q - log_p) / len(x)


def split(raw: Tensor) -> tuple[Tensor, Tensor]:
    loc, raw_scale = raw.chunk(2, dim=-1)
    return loc, softplus(raw_scale) + 1e-6


def cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, x, reduction="sum")


def mlp(size: Size) -> nn.Module:
    return GaussianVAE(*mlp_networks(size))


def conv(size: Size) -> nn.Module:
    return GaussianVAE(*conv_networks(size))


def iwae(size: Size) -> nn.Module:
    return IWAE(*mlp_networks(size), size.particles)


def flows(size: Size) -> nn.Module:
    return FlowVAE(size, prior=True)


def iaf(size: Size) -> nn.Module:
    return FlowVAE(size, prior=False)


def vamp(size: Size) -> nn.Module:
    return VampVAE(*mlp_networks(size), torch.rand(size.pseudo_inputs, size.dim))


def stepping(model, size: Size, *, compiled: bool) -> Contestant:
    """Eager with Adam, or by `torch.compile` with fused Adam."""
    module, x = model(size), size.data()
    first = module(x).item()
    loss = torch.compile(module) if compiled else module
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=compiled)

    def step() -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return Contestant(step, count_in(module), first)
