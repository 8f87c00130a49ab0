"""The holder of a model and its guide, for those who like one object."""

from __future__ import annotations

from torch import nn

from .guides import AmortizedGuide
from .models import LatentVariableModel


class VAE(nn.Module):
    r"""$p(z)\, p(x \mid z)$ with the guide $q(z \mid x)$: prior × likelihood × encoder, three conditionals.

    It owns two programs and no loss: `ELBO(vae.model, vae.guide)` trains it, `nll(vae.model, vae.guide, x)` scores it,
    and `vae.generator` is the same model under the name that an adversarial trainer gives it.

    Args:
        prior: conditional for $p(z)$, such as `StandardNormal(8)` or a `Flow`.
        likelihood: conditional for $p(x \mid z)$, such as `Bernoulli(net)`.
        encoder: conditional for $q(z \mid x)$, such as `Conditional(dist.Normal, net)` or a `Flow` over it.
        size: number of data in the full set, see `data_plate`; needed only beside global sites.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, StandardNormal, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> vae.model(None).shape
        torch.Size([1, 9])
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, encoder: nn.Module, size: int | None = None):
        super().__init__()
        self.model = LatentVariableModel(prior, likelihood, size=size)
        self.guide = AmortizedGuide(encoder, size=size)

    @property
    def generator(self) -> LatentVariableModel:
        """The model p(z) p(x | z) itself."""
        return self.model
