"""Free bits: a floor under the cost of a latent site, below which no gradient presses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..run.traces import Site


class FreeBits(nn.Module):
    r"""$\sum_j \max(\lambda_j, c_j)$: a cost that presses no further below its free nats λ.

    Args:
        nats: λ, 0-dim for the cost of a whole site, or of the site's event shape.

    Raises:
        TypeError: for a λ that is no number or tensor.
        ValueError: for a negative or infinite λ.

    References:
        Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, arXiv:1606.04934, section C.8.

    Example:
        >>> FreeBits(0.5)(torch.tensor(0.2))
        tensor(0.5000)
    """

    nats: Tensor

    def __init__(self, nats: float | Tensor):
        super().__init__()
        self.register_buffer("nats", _as_nats(nats))

    def check(self, name: str, site: Site) -> int:
        """The number of dims of λ: none, or as many as an event of the site.

        Raises:
            ValueError: for a λ of another shape than the site's events.
        """
        expected = tuple(site["fn"].event_shape)
        got = tuple(self.nats.shape)
        if got not in ((), expected):
            raise ValueError(
                f"site '{name}': expected free bits as one number or of the event shape "
                f"{expected}, got shape {got}. "
                f"Fix: free_bits={{'{name}': torch.full({expected}, 0.1)}}."
            )
        return self.nats.dim()

    def forward(self, cost: Tensor) -> Tensor:
        """The cost with its floor, 0-dim."""
        return cost.maximum(self.nats.to(cost.dtype)).sum()

    def extra_repr(self) -> str:
        """The floor as a number, or the shape of one floor for each latent dim."""
        if self.nats.dim() == 0:
            return f"{self.nats.item():g}"
        return f"shape={tuple(self.nats.shape)}"


def _as_nats(nats: float | Tensor) -> Tensor:
    """A floor of its own as a tensor of the default dtype."""
    try:
        if isinstance(nats, (bool, str)):
            raise TypeError(nats)
        floor = torch.as_tensor(nats, dtype=torch.get_default_dtype(), device="cpu").clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"free_bits: expected nats as a number or a tensor, got {nats!r}. "
            "Fix: free_bits={'z': 0.5}."
        ) from error
    if not bool(((floor >= 0) & floor.isfinite()).all()):
        raise ValueError(
            f"free_bits: expected nats >= 0, got {nats}. Fix: free_bits={{'z': 0.5}}, finite nats."
        )
    return floor
