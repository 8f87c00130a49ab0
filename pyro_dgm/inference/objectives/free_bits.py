"""Free bits: a floor under the cost of a latent site."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..run.traces import Site


class FreeBits(nn.Module):
    r"""$\sum_j \max(\lambda_j, c_j)$: a cost that presses no further below its free nats λ.

    Args:
        nats: λ, 0-dim for the cost of a whole site, or of the site's event shape.

    Raises:
        ValueError: for a negative λ.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv:1606.04934, section C.8.

    Example:
        >>> FreeBits(0.5)(torch.tensor(0.2))
        tensor(0.5000)
    """

    nats: Tensor

    def __init__(self, nats: float | Tensor):
        super().__init__()
        self.register_buffer("nats", torch.as_tensor(nats, dtype=torch.get_default_dtype()).clone())
        if bool((self.nats < 0).any()):
            raise ValueError(f"free_bits: expected nats >= 0, got {nats}.")

    def check(self, name: str, site: Site) -> int:
        """The number of dims of λ: none, or as many as an event of the site."""
        expected = tuple(site["fn"].event_shape)
        if tuple(self.nats.shape) not in ((), expected):
            raise ValueError(
                f"site '{name}': expected free bits as one number or of the event shape {expected}, got shape "
                f"{tuple(self.nats.shape)}. Fix: free_bits={{'{name}': torch.full({expected}, 0.1)}}."
            )
        return self.nats.dim()

    def forward(self, cost: Tensor) -> Tensor:
        """The cost with its floor, 0-dim."""
        return cost.maximum(self.nats.to(cost.dtype)).sum()
