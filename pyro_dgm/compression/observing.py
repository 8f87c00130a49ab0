"""Refusals of programs that a receiver, who has no x to look at, could not run as the sender has."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..densities.scoring import log_prob_of
from ..inference.data.tensors import Batch
from ..inference.run.traces import PairTrace, run_pair
from ..programs.guides import EmptyGuide


def require_data_themselves(name: str, value: Tensor, x: Tensor) -> None:
    """Refuse a model that observes a function of x, whose bits have x no more.

    Raises:
        ValueError: if it does.
    """
    if not torch.equal(value.double(), x.double()):
        raise ValueError(
            f"compress: site '{name}': expected x itself as what is observed, got other numbers, of which x does "
            f"not come back. Fix: pyro.sample('{name}', …, obs=x), and compress(model, guide, f(x))."
        )


def require_repeatable(model: Any, guide: Any, pair: PairTrace, block: Batch) -> None:
    """Refuse programs whose distributions are others in a second run, such as those of a dropout that is always on.

    Raises:
        ValueError: if q(z | x) or p(x, z) is another for the same z and x.
    """
    drawn = _values(pair)
    again = run_pair(poutine.condition(model, drawn), poutine.condition(guide, drawn), block)
    both = [(name, site, again.guide_sites[name]) for name, site in pair.latent.items()]
    for name in (*pair.latent, *pair.observed):
        both.append((name, pair.model_sites[name], again.model_sites[name]))
    for name, site, other in both:
        if not _agree(site, other):
            raise ValueError(
                f"compress: site '{name}': expected the same distribution in every run, got another one for the "
                "same z and x. Fix: no noise in the networks, such as nn.Dropout, which evaluation turns off."
            )


def require_blind(model: Any, pair: PairTrace, block: Batch) -> None:
    """Refuse a model whose distributions change with its argument x, as an autoregressive one by hand.

    Raises:
        ValueError: if p(x, z) is another where the model is given zeros.
    """
    template = (torch.zeros_like(block[0]), *block[1:])
    blind = run_pair(poutine.condition(model, _values(pair)), EmptyGuide(), template)
    for name in (*pair.latent, *pair.observed):
        if not _agree(pair.model_sites[name], blind.model_sites[name]):
            raise ValueError(
                f"compress: site '{name}': expected a distribution that does not depend on the model's argument x, "
                "which a receiver lacks, got another one for zeros. Fix: a model of z and the context alone; what x "
                "is predicted from as context."
            )


def _values(pair: PairTrace) -> dict[str, Tensor]:
    """What the guide has drawn."""
    return {name: site["value"] for name, site in pair.latent.items()}


def _agree(site: Any, other: Any) -> bool:
    """Whether two sites have one density at the value of the first."""
    log_p = log_prob_of(site["fn"], site["value"])
    got = log_prob_of(other["fn"], site["value"])
    return got.shape == log_p.shape and torch.allclose(got, log_p, 1e-4, 1e-6, equal_nan=True)
