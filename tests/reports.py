"""Pairs that are right, or wrong by a known amount, and short ways to read a report on them."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from toys import ExactGuide, LinearGaussian

import pyro_dgm as dgm
from pyro_dgm.diagnostics import Status

QUICK = {"num": 100, "limit": 50, "num_simulated": 200}
NAMES = [
    "data and sites",
    "finite numbers",
    "normalization",
    "active units",
    "mutual information",
    "NLL-ELBO gap",
    "k-hat",
    "importance ESS",
    "SBC",
    "aggregate-prior gap",
    "aggregate-prior test",
]


def pair(latent=2, **options):
    """A linear-Gaussian model and a guide that is off by `shift` standard deviations or by `spread`."""
    torch.manual_seed(3)
    model = LinearGaussian(latent=latent, observed=4)
    sd = ExactGuide(model).root[0, 0].item()
    return model, ExactGuide(
        model, shift=options.get("shift", 0.0) * sd, spread=options.get("spread", 1.0)
    )


def statuses(report):
    """Item → status."""
    return {item.name: item.status for item in report.items}


def warned(report):
    """Names of the items that warn."""
    return {name for name, status in statuses(report).items() if status is Status.WARN}


def skipped(report):
    """Item → reason."""
    return {item.name: item.finding for item in report.items if item.status is Status.SKIP}


def report_of_images():
    """A report on images of 36 pixels by a VAE that was never trained."""
    torch.manual_seed(0)
    vae = dgm.VAE(
        dgm.StandardNormal(3),
        dgm.DiscretizedLogistic(dgm.mlp(3, 8, 2 * 36), levels=5),
        dgm.Conditional(dist.Normal, dgm.mlp(36, 8, 6)),
    )
    return dgm.check(vae.model, vae.guide, torch.randint(5, (80, 36)).float(), **QUICK)
