"""The table's rows: programs of the gallery, and what is asked of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import log
from typing import Any

import pyro
import torch
from gallery.pyro_programs import (
    autoencoders,
    case_studies,
    factors,
    guides,
    regressions,
    sequences,
    topics,
)
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor
from torch.distributions import MultivariateNormal


@dataclass(frozen=True)
class Entry:
    """One program.

    Attributes:
        build: makes model, guide and arguments, data of random noise.
        elbo: Pyro's estimator for it.
        num: number of data; default: the length of the first argument.
        take_all: makes a program that looks at a part of the data at each step look at all, as estimates ask for.
        exact: the evidence of all data, where it is known.
        is_bound: whether its loss bounds the evidence; not so under a `poutine.scale` of all sites.
        has_globals: whether all data share a latent: its figure is the evidence of the set.
        lacks: column → why it does not hold yet; the test is then expected to fail.
    """

    build: Callable[[], tuple[Any, Any, tuple[Any, ...]]]
    elbo: Callable[[], ELBO] = Trace_ELBO
    num: int | None = None
    has_globals: bool = False
    take_all: Callable[[Any], None] = lambda model: None
    exact: Callable[..., float] | None = None
    is_bound: bool = True
    lacks: Mapping[str, str] = field(default_factory=dict)


def _enumerated(nesting: int) -> dict[str, Any]:
    return {"elbo": partial(TraceEnum_ELBO, max_plate_nesting=nesting)}


def take_all_rows(model: Any) -> None:
    """A program of a class that has the size of its subsample as an attribute."""
    model.__self__.subsample_size = None


def evidence_of_ppca(data: Tensor) -> float:
    """Of x ~ N(mean, W'W + sigma^2)."""
    W, mean, sigma = [pyro.param(name).detach() for name in ("W", "mean", "sigma")]
    covariance = W.T @ W + sigma**2 * torch.eye(len(mean))
    return MultivariateNormal(mean, covariance).log_prob(data).sum().item()


def evidence_of_process(X: Tensor, y: Tensor) -> float:
    """Of y ~ N(0, K + noise^2)."""
    names = ("variance", "lengthscale", "noise")
    variance, lengthscale, noise = [pyro.param(name).detach() for name in names]
    covariance = regressions.rbf(X, variance, lengthscale) + (noise**2 + 1e-5) * torch.eye(len(X))
    return MultivariateNormal(torch.zeros(len(X)), covariance).log_prob(y).item()


def evidence_of_change(y: Tensor) -> float:
    """Of Poisson counts whose rates, one on each side of the change, are exponential: a sum of gamma integrals."""
    n = len(y)
    terms = []
    for tau in range(n):
        term = -torch.lgamma(y + 1).sum() - log(n)
        for part in (y[:tau], y[tau:]):
            total = part.sum()
            term = term + torch.lgamma(total + 1) - (total + 1) * log(len(part) + 1)
        terms.append(term)
    return torch.stack(terms).logsumexp(0).item()


GALLERY = {
    "VAE": Entry(autoencoders.vae),
    "semi-supervised VAE": Entry(autoencoders.ss_vae, **_enumerated(1)),
    "semi-supervised VAE with labels": Entry(autoencoders.ss_vae_labelled),
    "conditional VAE": Entry(autoencoders.cvae),
    "deep Markov model": Entry(sequences.dmm),
    "prodLDA": Entry(topics.prodlda),
    "scANVI": Entry(topics.scanvi, is_bound=False),
    "probabilistic PCA, subsampled": Entry(
        factors.ppca, take_all=take_all_rows, exact=evidence_of_ppca
    ),
    "attend-infer-repeat": Entry(
        sequences.attend_infer_repeat, partial(TraceGraph_ELBO, max_plate_nesting=1)
    ),
    "Gaussian mixture": Entry(topics.gaussian_mixture, **_enumerated(1)),
    "LDA": Entry(topics.lda, has_globals=True, **_enumerated(2)),
    "hidden Markov model": Entry(sequences.hmm, has_globals=True, **_enumerated(2)),
    "sparse gamma DEF": Entry(topics.sparse_gamma, has_globals=True),
    "EasyGuide": Entry(topics.easy_guide, has_globals=True),
    "Bayesian regression": Entry(regressions.bayesian_regression, has_globals=True),
    "logistic regression": Entry(regressions.logistic_regression, has_globals=True),
    "eight schools": Entry(regressions.eight_schools, has_globals=True),
    "Gaussian process": Entry(
        regressions.gaussian_process, exact=evidence_of_process, has_globals=True
    ),
    "radon": Entry(regressions.radon, has_globals=True),
    "local mean field": Entry(factors.local_mean_field),
    "TransformModules": Entry(factors.transform_modules),
    "AutoGuideList": Entry(guides.guide_list, has_globals=True),
    "AutoNormalMessenger": Entry(guides.normal_messenger, has_globals=True),
    "AutoHierarchicalNormalMessenger": Entry(guides.hierarchical_messenger, has_globals=True),
    "AutoNormal over local and global latents": Entry(guides.local_auto_guide, has_globals=True),
    "reparameterized eight schools": Entry(case_studies.reparameterized_schools, has_globals=True),
    "robust regression on a keyword": Entry(case_studies.robust_regression, has_globals=True),
    "local level": Entry(case_studies.local_level, has_globals=True),
    "change point": Entry(
        case_studies.change_point, has_globals=True, exact=evidence_of_change, **_enumerated(1)
    ),
    "change point in the guide": Entry(
        case_studies.change_point_of_guide,
        has_globals=True,
        exact=evidence_of_change,
        **_enumerated(1),
    ),
    "zero-inflated regression": Entry(case_studies.zero_inflated_regression, has_globals=True),
    "item response": Entry(case_studies.item_response, has_globals=True),
    "survival": Entry(case_studies.survival, has_globals=True),
    "capture and recapture": Entry(
        case_studies.capture_recapture, has_globals=True, **_enumerated(1)
    ),
    "stochastic volatility": Entry(case_studies.stochastic_volatility, has_globals=True),
    "gene counts": Entry(case_studies.gene_counts),
}
for _name in guides.AUTO_GUIDES:
    GALLERY[_name] = Entry(partial(guides.auto_guide, _name), has_globals=True)
