"""Likelihoods of the dims of a datum that are observed, where others are missing."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ...densities.factors import masked_dims
from ..requirements import distribution_of, require_conditional


class Observed(nn.Module):
    r"""$p(x_b \mid z, c) = \prod_{d \in b} p(x_d \mid z, c)$: a likelihood of the observed dims b alone. Exact.

    The last context says which dims of each datum are observed. What x holds at the others is not scored, but must be a
    number inside the support. Draws have all dims. An ELBO is a bound on the likelihood $p(x_b)$ of what is observed:
    nothing is filled in, and the encoder sees what x holds and the mask. It is the likelihood of the data if what is
    missing does not depend on its own values given the others (missing at random).

    Args:
        likelihood: conditional whose dims are independent given z, such as `Normal(net)` or `Bernoulli(net)`; called as
            `likelihood(z, *context)`, without the mask.

    Shape:
        z: `(*batch, C)`; context: `(N, …)`; observed: bool `(N, *event)`, the last argument. Without an argument of
        that dtype behind z, all dims are observed.

    Raises:
        TypeError: for a likelihood that is no conditional.
        ValueError: if the likelihood does not factorize over dims (a flow, an autoregressive one), or for a mask of
            another shape.

    References:
        Rubin 1976, *Inference and missing data*, Biometrika 63; Nazabal et al. 2020, *Handling incomplete heterogeneous
        data using VAEs*, arXiv:1807.03653.

    Example:
        >>> from pyro_dgm import Bernoulli
        >>> likelihood, observed = Observed(Bernoulli(nn.Linear(2, 3))), torch.tensor([[True, False, False]])
        >>> z, x = torch.zeros(1, 2), torch.tensor([[1.0, 0.0, 0.0]])
        >>> logits = likelihood.likelihood.net(z)
        >>> bool(likelihood(z, observed).log_prob(x).isclose(logits[0, 0].sigmoid().log()))
        True
    """

    def __init__(self, likelihood: nn.Module):
        super().__init__()
        require_conditional("likelihood", likelihood, "Bernoulli(net)")
        self.likelihood = likelihood

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        if not contexts or contexts[-1].dtype is not torch.bool:
            return distribution_of("likelihood", self.likelihood, *contexts)
        *contexts_of_likelihood, observed = contexts
        distribution = distribution_of("likelihood", self.likelihood, *contexts_of_likelihood)
        _require_shape(observed, distribution)
        return masked_dims("Observed", distribution, observed)


def _require_shape(observed: Tensor, distribution: dist.TorchDistribution) -> None:
    event_shape = distribution.event_shape
    got = observed.shape[observed.dim() - len(event_shape) :]
    if got != event_shape:
        raise ValueError(
            f"Observed: expected a mask (N, *{tuple(event_shape)}), a truth for each dim of the likelihood, "
            f"got {tuple(observed.shape)}. Fix: observed=x.isfinite(), the last context."
        )
