r"""Data of which only some dims are observed: $p(x_b \mid z)$ of any model whose dims are independent given z."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from ...contract import PyroProgram
from ...densities.factors import masked_dims
from ...inference.run.sessions import check_program
from ...inference.sites.kinds import is_data


class Marginal(nn.Module):
    r"""$p(x_b, z) = p(z) \prod_{d \in b} p(x_d \mid z)$: a model of data of which the dims b alone are observed.

    A program with one argument more, the last: which dims of each datum are observed. With `Unmasked(guide)` it is a
    pair that keeps the contract, and without it `hmc(Marginal(model), x, observed)` draws from $p(z \mid x_b)$. What x
    holds at the other dims is not scored, but must be a number inside the support. Generated, x has all its dims.

    Args:
        model: a Pyro program whose observed site takes the first argument as it is, `obs=x`, with a distribution
            whose dims are independent given z, such as `Normal(net)` or `Bernoulli(net)`.

    Shape:
        x: `(N, *event)`; observed: bool `(N, *event)`, behind the context.

    Raises:
        ValueError: if the distribution of x does not factorize over dims (a flow, an autoregressive or dequantized
            likelihood).
        TypeError: for what is no program.

    Example:
        >>> import torch
        >>> from pyro_dgm import LatentVariableModel, Normal, StandardNormal, hmc
        >>> model = LatentVariableModel(StandardNormal(2), Normal(nn.Linear(2, 3)))
        >>> x, observed = torch.zeros(5, 3), torch.tensor([True, False, True]).expand(5, 3)
        >>> hmc(Marginal(model), x, observed, num=10, warmup=8, chains=2).draws["z"].shape
        torch.Size([2, 10, 5, 2])
    """

    def __init__(self, model: PyroProgram):
        super().__init__()
        check_program(model)
        self.model = model

    def forward(self, x: Tensor | None, *rest: Any) -> Any:  # noqa: D102
        *context, observed = rest
        with _MaskMissing(x, observed):
            return self.model(x, *context)


class Unmasked(nn.Module):
    r"""$q(z \mid x)$ with the arguments of `Marginal`: a guide that sees x whole, the observed dims and the others.

    Args:
        guide: a Pyro guide.
    """

    def __init__(self, guide: PyroProgram):
        super().__init__()
        check_program(guide)
        self.guide = guide

    def forward(self, x: Tensor | None, *rest: Any) -> Any:  # noqa: D102
        return self.guide(x, *rest[:-1])


class _MaskMissing(Messenger):
    """Leaves the dims that are not observed out of the density of the site that observes x."""

    def __init__(self, x: Tensor | None, observed: Tensor):
        super().__init__()
        self.x, self.observed = x, observed

    def _pyro_sample(self, msg: Any) -> None:
        if self.x is not None and is_data(msg) and msg["value"] is self.x:
            msg["fn"] = masked_dims(f"site '{msg['name']}'", msg["fn"], self.observed)
