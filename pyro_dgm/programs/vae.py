"""The VAE: a model and its guide in one object, built of a prior, a likelihood and an encoder."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import nn

from .dequantization.quantization import dequantized
from .guides import AmortizedGuide
from .models import LatentVariableModel
from .program import Program


class VAE(nn.Module):
    r"""$p(z)\, p(x \mid z)$ with the guide $q(z \mid x)$, built of a prior, a likelihood and an encoder.

    It owns two programs and no loss: `ELBO(vae.model, vae.guide)` trains it, `nll(vae.model, vae.guide, x)`
    scores it. `vae.generator` is the program $p(z)\, p(x \mid z)$, which an adversarial trainer trains as
    well. With a dequantizer its likelihood is a density of $x + u$, `vae.model` is the mass
    $\int p(z)\, p(x + u \mid z)\, du$, and the guide is $q(u \mid x)\, q(z \mid x + u)$.

    Args:
        prior: conditional for $p(z)$, such as `StandardNormal(8)` or a `Flow`.
        likelihood: conditional for $p(x \mid z)$, such as `Bernoulli(net)`.
        encoder: conditional for $q(z \mid x)$, such as `Conditional(dist.Normal, net)` or a `Flow` over it.
        dequantizer: conditional for $q(u \mid x)$, such as `UnitUniform()`, if the data are integers and the
            likelihood is a density in units of levels.
        size: number of data in the full set, see `data_plate`; needed only where there are global sites.
        levels: number L of levels of dequantized data if they are known to lie in 0, …, L − 1, see
            `dequantized`.

    Raises:
        TypeError: for a part that is no conditional, or when the VAE itself is called.
        ValueError: for `levels` without a dequantizer.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_dgm import Bernoulli, Conditional, StandardNormal, mlp
        >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
        >>> vae.model(None).shape
        torch.Size([1, 9])
    """

    def __init__(
        self,
        prior: nn.Module,
        likelihood: nn.Module,
        encoder: nn.Module,
        dequantizer: nn.Module | None = None,
        size: int | None = None,
        levels: int | None = None,
    ):
        super().__init__()
        if levels is not None and dequantizer is None:
            raise ValueError(
                f"VAE: expected a dequantizer with levels={levels}, got none. "
                "Fix: dequantizer=UnitUniform(), or levels= of a likelihood such as "
                "DiscretizedLogistic."
            )
        self.levels = levels
        self.generator = LatentVariableModel(prior, likelihood, size=size)
        self.guide = AmortizedGuide(encoder, dequantizer, size=size)
        # All tensors of the dequantized generator are the generator's. In a tuple it is no
        # submodule, so that each of them stands in the state dict once.
        self._dequantized: tuple[Program, ...] = ()
        if dequantizer is not None:
            self._dequantized = (dequantized(self.generator, self.generator.observed, levels),)

    @property
    def model(self) -> Program:
        """The program that data are scored by: the generator, dequantized if there is a dequantizer."""
        return self._dequantized[0] if self._dequantized else self.generator

    def extra_repr(self) -> str:
        return f"levels={self.levels}"

    def __call__(self, *batch: Any) -> NoReturn:
        raise TypeError(
            "VAE: expected one of its two programs to be called, got the VAE, which holds them. "
            "Fix: vae.model(x), vae.guide(x), or ELBO(vae.model, vae.guide)(x) for the loss."
        )

    def train(self, mode: bool = True) -> VAE:  # noqa: FBT001, FBT002
        """Set the mode of all parts, as of any module, and of `model`."""
        super().train(mode)
        self.model.train(mode)
        return self

    def replace(self, **parts: Any) -> VAE:
        """A VAE with some parts replaced, by the names of the constructor; the others are shared.

        Example:
            >>> from pyro_dgm import Bernoulli, Conditional, MixturePrior, StandardNormal, mlp
            >>> import pyro.distributions as dist
            >>> vae = VAE(StandardNormal(2), Bernoulli(mlp(2, 9)), Conditional(dist.Normal, mlp(9, 4)))
            >>> vae.replace(prior=MixturePrior(2, 5)).guide.encoder is vae.guide.encoder
            True
        """
        own_parts: dict[str, Any] = {
            "prior": self.generator.prior,
            "likelihood": self.generator.likelihood,
            "encoder": self.guide.encoder,
            "dequantizer": self.guide.dequantizer,
            "size": self.generator.size,
            "levels": self.levels,
        }
        return VAE(**(own_parts | parts))
