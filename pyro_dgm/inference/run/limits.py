r"""What no likelihood can be, beyond the noise of draws: masses above 1, a KL below 0."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..sites.measures import Measure

CERTAINTY = 25.0  # nats: chance alone passes a limit by as much with probability exp(-25)
UNITS = 16  # of rounding that a log density of many terms gathers
CLOSED = 1e-4  # nats below 0 that rounding may take a KL in closed form, of few dims
SLACK = 0.01  # nats per datum that sums of rounded terms may add


def unit_of_rounding(log_densities: Iterable[Tensor]) -> float:
    """The relative error of log densities, each a sum of many terms: that of the least precise among them."""
    eps = [torch.finfo(value.dtype).eps for value in log_densities if value.is_floating_point()]
    return UNITS * max(eps, default=0.0)


def check_masses(log_mass: Tensor, rounding: Tensor) -> None:
    r"""Refuse $\log P(x \mid z) > 0$ of discrete data, which no noise explains.

    Args:
        log_mass: the largest of each datum `(N,)`.
        rounding: of the datum's log densities `(N,)`.

    Raises:
        ValueError: for a mass beyond 1.
    """
    excess = log_mass - rounding
    if bool((excess > SLACK).any()):
        worst = int(excess.nan_to_num(nan=-torch.inf).argmax())
        raise ValueError(
            f"likelihood: expected masses of discrete data, at most 1, got log P(x|z) = "
            f"{log_mass[worst].item():.4g} nats at datum {worst}. Fix: a distribution that sums to one; "
            "dgm.diagnostics.normalization(model, guide, x) says how far it is from it."
        )


def check_total(measure: Measure, cost: Tensor, rounding: Tensor | float = 0.0) -> None:
    r"""Refuse $\sum_i -\log \hat P(x_i) < 0$ of discrete data, beyond what the draws explain.

    For weights of mean $P(x_i) \le 1$, $E \prod_i \hat P(x_i) \le 1$, so that by Markov's inequality the sum falls
    below $-c$ with a probability of at most $e^{-c}$, whatever their distribution.

    Args:
        measure: what is measured; only masses have the limit.
        cost: $-\log \hat P(x_i)$ `(N,)`.
        rounding: of the log densities `(N,)`.

    Raises:
        ValueError: for a negative likelihood of discrete data.
    """
    if measure is not Measure.MASS:
        return
    total = (cost + rounding + SLACK).sum().item()
    if total < -CERTAINTY:
        raise ValueError(
            f"likelihood: expected -log P(x) >= 0 of discrete data, got {cost.mean().item():.4g} nats per "
            "datum: the model, or its guide, is not normalized. Fix: densities and masses that integrate to one; "
            "dgm.diagnostics.normalization(model, guide, x) looks at the observed sites."
        )


def check_divergence(
    owner: str, terms_of_datum: Tensor, num: int, rounding: Tensor | float = 0.0
) -> None:
    r"""Refuse $\frac1K \sum_k \log \frac{q(z_k)}{p(z_k)} < 0$ beyond what the draws explain: no KL is negative.

    By Markov's inequality, as $E_q[p / q] \le 1$: see `check_total`.

    Args:
        owner: whose KL it is, for the message.
        terms_of_datum: the mean over the draws of each datum `(N,)`.
        num: number K of draws.
        rounding: of the log densities `(N,)`.

    Raises:
        ValueError: for a KL that is negative beyond its error.
    """
    total = num * (terms_of_datum + rounding).sum().item()
    if total < -CERTAINTY:
        raise ValueError(
            f"{owner}: expected KL(q || p) >= 0, got {terms_of_datum.mean().item():.4g} nats, negative beyond "
            "its error: prior or guide is not normalized. Fix: distributions that integrate to one at the "
            "latent sites."
        )


def check_closed_form(name: str, kl: Tensor, num_dims: int) -> None:
    """Refuse a KL in closed form that is negative beyond rounding.

    Args:
        name: of the latent site.
        kl: of each datum, over all dims of its event.
        num_dims: how many these are.

    Raises:
        ValueError: with the least.
    """
    least = kl.min().item()
    if least < -max(CLOSED, unit_of_rounding([kl]) * num_dims):
        raise ValueError(
            f"site '{name}': expected KL(q || p) >= 0, got {least:.4g} nats from the closed form of the two "
            "distributions. Fix: analytic_kl=False; a kl_divergence of your own that is registered with "
            "torch.distributions.kl.register_kl is to be of q and p in this order."
        )


def check_figures(owner: str, per_datum: Tensor) -> None:
    r"""Refuse a $-\log p(x)$ that is NaN or $-\infty$: a draw where the guide has no density, or an infinite one.

    Args:
        owner: who asks, for the message.
        per_datum: the figures `(N,)`; $+\infty$ is one, of data that the model does not make.

    Raises:
        ValueError: with how many there are.
    """
    is_bad = per_datum.isnan() | (per_datum == -torch.inf)
    num = int(is_bad.sum())
    if num:
        raise ValueError(
            f"{owner}: expected -log p(x) as numbers, got NaN or -inf for {num} of {len(per_datum)} data: draws "
            "lie where the guide's or the model's density is zero or infinite, often by rounding. "
            "Fix: module.double() and x.double(); a guide of wider scales, or one over the whole line."
        )
