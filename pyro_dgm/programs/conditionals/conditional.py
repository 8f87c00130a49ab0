"""Conditionals: modules whose forward maps a context to a Pyro distribution. They never call `pyro.sample`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import expm1, log
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import transform_to
from torch.nn.functional import softplus

POSITIVE_FLOOR = 1e-6
LOGITS = {"probs": "logits", "gate": "gate_logits"}


def positive(raw: Tensor, floor: float = POSITIVE_FLOOR) -> Tensor:
    r"""$\mathrm{softplus}(r) + 10^{-6}$, the one positive link: `exp` under- and overflows on raw network outputs."""
    return softplus(raw) + floor


def raw_of_positive(value: float) -> float:
    r"""The raw number that `positive` sends to a value: $r + \log(1 - e^{-r})$ at $r = v - 10^{-6}$."""
    above = max(value - POSITIVE_FLOOR, 1e-3 * POSITIVE_FLOOR)
    return above + log(-expm1(-above))


def link(
    constraint: constraints.Constraint, floor: float = POSITIVE_FLOOR
) -> Callable[[Tensor], Tensor]:
    """The smooth map from raw network outputs onto the set of a distribution's parameter.

    Example:
        >>> link(constraints.positive)(torch.zeros(1))
        tensor([0.6931])
    """
    if isinstance(constraint, constraints.greater_than | constraints.greater_than_eq):
        return partial(_above, constraint.lower_bound, floor)
    return transform_to(constraint)


def _above(lower_bound: Any, floor: float, raw: Tensor) -> Tensor:
    return lower_bound + positive(raw, floor)


class Conditional(nn.Module):
    r"""$p(x \mid c) = \mathrm{family}(x;\ \eta(c))$, every parameter $\eta_i = \mathrm{link}_i(\mathrm{net}(c)_i)$.

    The first event dim of the network's output (the last dim of vectors, the channels of images) is cut into equal
    chunks, one per parameter of the family, and each chunk is sent onto the parameter's `arg_constraints` set
    (softplus with a floor for positive ones). The density is exact.

    Args:
        family: a Pyro distribution class, such as `dist.Normal`.
        net: maps contexts to raw parameters `(*batch, num_params * D)`.
        params: names of the family's parameters in the order of the chunks; default: its `arg_constraints`
            (`logits` where a family knows both `probs` and `logits`) without the fixed ones.
        event_dim: how many rightmost dims form one event: 1 for vectors, 3 for images.
        floor: smallest value of a positive parameter, such as 0.05 for the scales of a posterior: while a KL is
            annealed from 0 nothing else keeps them from running to 0.
        fixed: arguments of the family that no network gives, such as `{"total_count": 10}`; tensors move with the
            module and broadcast against the event, and are no part of its state dict.

    Shape:
        c: `(*batch, C)`  ->  a distribution with batch_shape `(*batch)` and event_shape `(D,)`.

    Raises:
        ValueError: for a family with vector or matrix parameters; for an integer parameter that is not fixed, or one
            that is both fixed and given by the network; if `event_dim < 1` or `floor <= 0`; or if that dim of the
            output is no multiple of the number of parameters.

    Example:
        >>> encoder = Conditional(dist.Normal, nn.Linear(3, 2 * 4))
        >>> encoder(torch.zeros(7, 3)).batch_shape, encoder(torch.zeros(7, 3)).event_shape
        (torch.Size([7]), torch.Size([4]))
        >>> Conditional(dist.StudentT, nn.Linear(3, 2 * 4), fixed={"df": 5.0}).params
        ('loc', 'scale')
    """

    def __init__(
        self,
        family: type[TorchDistributionMixin],
        net: nn.Module,
        params: Sequence[str] | None = None,
        event_dim: int = 1,
        floor: float = POSITIVE_FLOOR,
        fixed: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if not floor > 0:
            raise ValueError(f"Conditional: expected floor > 0, got {floor}.")
        if event_dim < 1:
            raise ValueError(
                f"Conditional: expected event_dim >= 1, got {event_dim}. Fix: event_dim=1 for scalars (*batch, 1)."
            )
        self.family, self.net, self.event_dim = family, net, event_dim
        constrained: Any = family.arg_constraints
        self._fix(fixed or {})
        self.params = tuple(params or _natural_params(constrained, self.fixed))
        _check_params(family, self.params, self.fixed)
        self.links = tuple(link(constrained[name], floor) for name in self.params)

    def _fix(self, fixed: Mapping[str, Any]) -> None:
        self.fixed = tuple(fixed)
        for name, value in fixed.items():
            if isinstance(value, Tensor):
                self.register_buffer(f"fixed_{name}", value, persistent=False)
            else:
                setattr(self, f"fixed_{name}", value)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = self.net(*contexts)
        dim = -self.event_dim  # the last dim of vectors, the channels of images
        if raw.dim() < self.event_dim or raw.shape[dim] % len(self.params):
            raise ValueError(
                f"Conditional({self.family.__name__}): expected a network output (*batch, {len(self.params)} * D), one "
                f"chunk for each of {self.params}; got shape {tuple(raw.shape)}. Fix: end the network with "
                f"nn.Linear(hidden, {len(self.params)} * D)."
            )
        chunks = raw.chunk(len(self.params), dim=dim)
        values: dict[str, Any] = {
            n: to(chunk) for n, to, chunk in zip(self.params, self.links, chunks, strict=True)
        }
        values |= {n: getattr(self, f"fixed_{n}") for n in self.fixed}
        return self.family(**values).to_event(self.event_dim)


def _natural_params(names: Iterable[str], fixed: Iterable[str]) -> tuple[str, ...]:
    """What the network gives: not the fixed ones, in either form, and logits in place of probabilities."""
    names, fixed = tuple(names), tuple(fixed)
    left_out = (
        {p for p, logits in LOGITS.items() if logits in names}
        | {LOGITS.get(n, n) for n in fixed}
        | set(fixed)
    )
    return tuple(n for n in names if n not in left_out)


def _check_params(
    family: type[TorchDistributionMixin], params: Sequence[str], fixed: Sequence[str]
) -> None:
    constrained: Any = family.arg_constraints
    joint = [
        n
        for n in params
        if constraints.is_dependent(constrained[n]) or constrained[n].event_dim > 0
    ]
    if joint:
        raise ValueError(
            f"Conditional({family.__name__}): expected parameters of one number per event dim, got {joint}, "
            "which are vectors or matrices. Fix: a module of your own that builds the law; Categorical for levels."
        )
    integers = [n for n in params if constrained[n].is_discrete]
    if integers:
        raise ValueError(
            f"Conditional({family.__name__}): expected parameters that a network can give, got the integers "
            f"{integers}. Fix: fixed={{{integers[0]!r}: 10}}."
        )
    if twice := sorted(set(params) & set(fixed)):
        raise ValueError(
            f"Conditional({family.__name__}): expected each parameter once, got {twice} in params and in fixed. "
            "Fix: leave it out of params."
        )


class StandardNormal(nn.Module):
    r"""$p(z) = \mathcal N(z; 0, I_D)$, whatever the context.

    Args:
        dim: size D of a vector z, or the shape of an image z, such as `(1, 28, 28)`.

    Shape:
        c: nothing, or `(*batch, C)`  ->  a distribution with batch_shape `()` or `(*batch)`, event_shape `(dim,)`.
        The context of an image is an image, `(*batch, C, H, W)`.

    Example:
        >>> StandardNormal(8)().event_shape, StandardNormal((1, 4, 4))().event_shape
        (torch.Size([8]), torch.Size([1, 4, 4]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int | Sequence[int]):
        super().__init__()
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        event_dim = self.loc.dim()
        batch = torch.broadcast_shapes(*(c.shape[:-event_dim] for c in contexts))
        distribution = dist.Normal(self.loc, self.scale, validate_args=False)
        return (distribution.expand(batch + self.loc.shape) if batch else distribution).to_event(
            event_dim
        )
