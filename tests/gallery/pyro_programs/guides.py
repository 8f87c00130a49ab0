"""Guides that Pyro makes from a model: every AutoGuide, lists of them, messengers."""

from __future__ import annotations

from functools import partial

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import autoguide
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from pyro.infer.autoguide.effect import AutoHierarchicalNormalMessenger, AutoNormalMessenger

from .regressions import schools_data, schools_model

AUTO_GUIDES = {
    "AutoDelta": autoguide.AutoDelta,
    "AutoNormal": autoguide.AutoNormal,
    "AutoDiagonalNormal": autoguide.AutoDiagonalNormal,
    "AutoMultivariateNormal": autoguide.AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": partial(autoguide.AutoLowRankMultivariateNormal, rank=2),
    "AutoIAFNormal": partial(autoguide.AutoIAFNormal, hidden_dim=[12]),
    "AutoLaplaceApproximation": autoguide.AutoLaplaceApproximation,
    "AutoStructured": partial(
        autoguide.AutoStructured,
        conditionals={"mu": "normal", "tau": "normal", "eta": "normal"},
        dependencies={"tau": {"mu": "linear"}},
    ),
    "AutoGaussian": autoguide.AutoGaussian,
}


def auto_guide(name):
    return schools_model, AUTO_GUIDES[name](schools_model), schools_data()


def guide_list():
    guide = AutoGuideList(schools_model)
    guide.append(AutoNormal(poutine.block(schools_model, expose=["mu", "eta"])))
    guide.append(autoguide.AutoDiagonalNormal(poutine.block(schools_model, expose=["tau"])))
    return schools_model, guide, schools_data()


def effects_model(y, sigma):
    """Priors with means, which messenger guides start from."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfNormal(5.0))
    with pyro.plate("J", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def normal_messenger():
    return effects_model, AutoNormalMessenger(effects_model), schools_data()


def hierarchical_messenger():
    return effects_model, AutoHierarchicalNormalMessenger(effects_model), schools_data()


def local_auto_guide():
    """A local latent for each datum and a global one, all by one AutoNormal."""

    def model(x):
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, scale))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    return model, AutoNormal(model), (torch.randn(15) * 2,)
