"""Likelihood makers for counts: distributions over 0, 1, 2, … whose parameters a network gives."""

from __future__ import annotations

from torch import Tensor, nn

from ...densities import counts
from ..conditionals.conditional import Conditional
from ..requirements import require_network
from .base import FamilyLikelihood


class Binomial(Conditional):
    r"""$P(x \mid c) = \prod_d \binom{n}{x_d} p_d^{x_d} (1 - p_d)^{n - x_d}$, $p = \sigma(\mathrm{net}(c))$.

    Exact, in nats.

    Args:
        net: maps contexts to logits `(*batch, *event)`.
        total_count: the number n of trials, one number or one per event dim.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.

    Example:
        >>> import torch
        >>> Binomial(nn.Identity(), total_count=16)(torch.zeros(1, 3)).mean
        tensor([[8., 8., 8.]])
    """

    def __init__(
        self,
        net: nn.Module,
        total_count: int | Tensor,
        event_dim: int = 1,
    ):
        require_network("Binomial", net)
        super().__init__(
            counts.Binomial,
            net,
            ("logits",),
            event_dim,
            fixed={"total_count": total_count},
        )

    def extra_repr(self) -> str:
        return f"total_count={self.fixed_total_count}, event_dim={self.event_dim}"


class Poisson(FamilyLikelihood):
    r"""$P(x \mid c) = \prod_d e^{-\lambda_d} \lambda_d^{x_d} / x_d!$. Exact, in nats.

    The rates λ are softplus of the network's outputs.

    Args:
        net: maps contexts to raw rates `(*batch, *event)`.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.

    Example:
        >>> import torch
        >>> Poisson(nn.Linear(2, 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = counts.Poisson
    params = ("rate",)


class NegativeBinomial(FamilyLikelihood):
    r"""$P(x \mid c) = \prod_d \frac{\Gamma(x_d + r_d)}{x_d!\, \Gamma(r_d)} (1 - p_d)^{r_d} p_d^{x_d}$. Exact.

    Counts whose variance $m + m^2 / r$ exceeds their mean $m = r e^{\ell}$, with $p = \sigma(\ell)$.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D raw r (softplus), then D logits ℓ.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if the network's last dim is odd.

    Example:
        >>> import torch
        >>> NegativeBinomial(nn.Linear(2, 2 * 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = counts.NegativeBinomial
    params = ("total_count", "logits")


class ZeroInflatedPoisson(FamilyLikelihood):
    r"""$P(x \mid c) = \prod_d [g_d\, 1_{x_d = 0} + (1 - g_d)\, \mathrm{Pois}(x_d;\ \lambda_d)]$. Exact.

    Args:
        net: maps contexts to `(*batch, 2 * D)`: D raw rates λ (softplus), then D logits of the gates g.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if the network's last dim is odd.

    Example:
        >>> import torch
        >>> ZeroInflatedPoisson(nn.Linear(2, 2 * 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = counts.ZeroInflatedPoisson
    params = ("rate", "gate_logits")


class ZeroInflatedNegativeBinomial(FamilyLikelihood):
    r"""$P(x \mid c) = \prod_d [g_d\, 1_{x_d = 0} + (1 - g_d)\, \mathrm{NB}(x_d;\ r_d, p_d)]$. Exact.

    Where validation is on, Pyro refuses a p that rounds to 1, which is a logit above 16 (float32).

    Args:
        net: maps contexts to `(*batch, 3 * D)`: D raw r (softplus), D logits of p, D logits of the gates g.
        event_dim: number of event dims: 1 for vectors, 3 for images.

    Raises:
        TypeError: if `net` is no network.
        ValueError: if the network's last dim is no multiple of 3.

    References:
        Lopez et al. 2018, *Deep generative modeling for single-cell transcriptomics*, Nature Methods 15,
        1053-1058.

    Example:
        >>> import torch
        >>> ZeroInflatedNegativeBinomial(nn.Linear(2, 3 * 9))(torch.zeros(4, 2)).event_shape
        torch.Size([9])
    """

    family = counts.ZeroInflatedNegativeBinomial
    params = ("total_count", "logits", "gate_logits")
