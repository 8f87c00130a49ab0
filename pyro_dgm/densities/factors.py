"""Distributions that are products over their dims, and the products over some of them."""

from __future__ import annotations

from pyro.distributions import MaskedDistribution, TorchDistribution
from torch import Tensor
from torch.distributions import Independent


def independent_dims(distribution: TorchDistribution) -> TorchDistribution | None:
    r"""The factors $p(z_d)$ of $p(z) = \prod_d p(z_d)$, batch_shape `(*batch, *event)`; `None` if it is no product.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> independent_dims(dist.Normal(torch.zeros(5, 3), 1.0).to_event(1)).batch_shape
        torch.Size([5, 3])
        >>> independent_dims(dist.Dirichlet(torch.ones(3))) is None
        True
    """
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    return base if distribution.event_shape and not base.event_shape else None


def independent_numbers(distribution: TorchDistribution) -> TorchDistribution | None:
    """`independent_dims`, where a distribution of scalars is its own only factor."""
    return independent_dims(distribution) if distribution.event_shape else distribution


def masked_dims(owner: str, distribution: TorchDistribution, observed: Tensor) -> TorchDistribution:
    r"""$\prod_{d \in b} p(x_d)$ of a distribution $\prod_d p(x_d)$.

    Args:
        owner: whose distribution it is, such as `site 'x'`, for the message.
        distribution: `(*batch, *event)`.
        observed: which dims belong to b `(N, *event)`.

    Raises:
        ValueError: if the distribution does not factorize.
    """
    if type(distribution) is MaskedDistribution:  # a mask of data, in the user's program
        unmasked = masked_dims(owner, distribution.base_dist, observed)
        return MaskedDistribution(unmasked, distribution._mask)
    factors = independent_numbers(distribution)
    if factors is None or factors.event_shape:
        raise ValueError(
            f"{owner}: expected a distribution whose dims are independent given the latents, "
            f"so that some can be left out, got {distribution}. Fix: a likelihood such as "
            "Normal(net), Bernoulli(net) or DiscretizedLogistic(net, levels); a flow or an "
            "autoregressive likelihood has no p(x_b | z) in closed form."
        )
    return factors.mask(observed).to_event(len(distribution.event_shape))
