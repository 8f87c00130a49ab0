"""Refusals of models that look at x otherwise than as what is decoded: a receiver has no x to look at."""

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


def require_blind(model: Any, pair: PairTrace, block: Batch) -> None:
    """Refuse a model whose distributions change with its argument x, as an autoregressive one by hand.

    Raises:
        ValueError: if p(x, z) is another where the model is given zeros.
    """
    drawn = {name: site["value"] for name, site in pair.latent.items()}
    template = (torch.zeros_like(block[0]), *block[1:])
    blind = run_pair(poutine.condition(model, drawn), EmptyGuide(), template)
    for name in (*pair.latent, *pair.observed):
        site = pair.model_sites[name]
        log_p = log_prob_of(site["fn"], site["value"])
        got = log_prob_of(blind.model_sites[name]["fn"], site["value"])
        if got.shape != log_p.shape or not torch.allclose(got, log_p, 1e-4, 1e-6, equal_nan=True):
            raise ValueError(
                f"compress: site '{name}': expected a distribution that does not depend on the model's argument x, "
                "which a receiver lacks, got another one for zeros. Fix: a model of z and the context alone; what x "
                "is predicted from as context."
            )
