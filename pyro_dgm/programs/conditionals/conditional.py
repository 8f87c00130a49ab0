"""Conditionals: modules whose forward maps a context to a Pyro distribution, and draws nothing."""

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

from ...densities.precision import network_output
from ...display.representation import SettingsFirst
from ..requirements import describe, require_network, require_sizes

POSITIVE_FLOOR = 1e-6
LOGITS = {"probs": "logits", "gate": "gate_logits"}  # two forms of one parameter


def positive(raw: Tensor, floor: float = POSITIVE_FLOOR) -> Tensor:
    r"""$\mathrm{softplus}(r) + 10^{-6}$, the one positive link; `exp` under- and overflows."""
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


class Conditional(SettingsFirst):
    r"""$p(x \mid c) = \mathrm{family}(x; \eta(c))$ with $\eta_i = \mathrm{link}_i(\mathrm{net}(c)_i)$.

    The first event dim of the network's output (the last dim of vectors, the channels of images) is cut into
    equal chunks, one per parameter of the family, and each chunk is sent onto the parameter's
    `arg_constraints` set (softplus with a floor for positive ones). The density is exact.

    Args:
        family: a Pyro distribution class, such as `dist.Normal`.
        net: maps contexts to raw parameters `(*batch, num_params * D)`.
        params: names of the family's parameters in the order of the chunks; default: its `arg_constraints`
            (`logits` where a family knows both `probs` and `logits`) without the fixed ones.
        event_dim: how many rightmost dims form one event: 1 for vectors, 3 for images.
        floor: smallest value of a positive parameter, such as 0.05 for the scales of a posterior: while a KL
            is annealed from 0 nothing else keeps them from running to 0.
        fixed: arguments of the family that no network gives, such as `{"total_count": 10}`; tensors move with
            the module and broadcast against the event, and are no part of its state dict.

    Shape:
        c: `(*batch, C)`  ->  a distribution with batch_shape `(*batch)` and event_shape `(D,)`.

    Raises:
        TypeError: for a family that is no class of Pyro distributions, or a network that is none.
        ValueError: for a family with vector or matrix parameters; for an integer parameter that is not fixed,
            or one that is both fixed and given by the network; if `event_dim < 1` or `floor <= 0`; or if that
            dim of the output is no multiple of the number of parameters.

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
        _require_family(family)
        require_network("Conditional", net)
        if not floor > 0:
            raise ValueError(f"Conditional: expected floor > 0, got {floor}. Fix: floor=1e-6.")
        if event_dim < 1:
            raise ValueError(
                f"Conditional: expected event_dim >= 1, got {event_dim}. "
                "Fix: event_dim=1 for scalars (*batch, 1)."
            )
        self.family = family
        self.net = net
        self.event_dim = event_dim
        self.floor = floor
        self._register_fixed(fixed or {})
        constrained: Any = family.arg_constraints
        self.params = tuple(params or _natural_params(constrained, self.fixed))
        _check_params(family, self.params, self.fixed)
        self.links = tuple(link(constrained[name], floor) for name in self.params)

    def _register_fixed(self, fixed: Mapping[str, Any]) -> None:
        self.fixed = tuple(fixed)
        for name, value in fixed.items():
            if isinstance(value, Tensor):
                self.register_buffer(f"fixed_{name}", value, persistent=False)
            else:
                setattr(self, f"fixed_{name}", value)

    def _fixed_values(self) -> dict[str, Any]:
        return {name: getattr(self, f"fixed_{name}") for name in self.fixed}

    def extra_repr(self) -> str:
        settings = [self.family.__name__, f"params={self.params}"]
        if self.event_dim != 1:
            settings.append(f"event_dim={self.event_dim}")
        if self.floor != POSITIVE_FLOOR:
            settings.append(f"floor={self.floor}")
        if self.fixed:
            settings.append(f"fixed={self._fixed_values()}")
        return ", ".join(settings)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        raw = network_output(self.net(*contexts))
        self._check_width(raw)
        # The first event dim is cut: the last dim of vectors, the channels of images.
        chunks = raw.chunk(len(self.params), dim=-self.event_dim)
        values = self._fixed_values() if self.fixed else {}
        for name, to_constraint, chunk in zip(self.params, self.links, chunks, strict=True):
            values[name] = to_constraint(chunk)
        return self.family(**values).to_event(self.event_dim)

    def _check_width(self, raw: Tensor) -> None:
        num = len(self.params)
        if raw.dim() < self.event_dim or raw.shape[-self.event_dim] % num:
            raise ValueError(
                f"Conditional({self.family.__name__}): expected a network output "
                f"(*batch, {num} * D), one chunk for each of {self.params}; "
                f"got shape {tuple(raw.shape)}. "
                f"Fix: end the network with nn.Linear(hidden, {num} * D)."
            )


def _require_family(family: Any) -> None:
    """Refuse what is no class of Pyro distributions, such as one of its instances."""
    if isinstance(family, type) and issubclass(family, TorchDistributionMixin):
        return
    raise TypeError(
        "Conditional: expected as family a class of pyro.distributions, "
        f"got {describe(family)}. Fix: Conditional(dist.Normal, net)."
    )


def _natural_params(names: Iterable[str], fixed: Iterable[str]) -> tuple[str, ...]:
    """What the network gives: not the fixed ones, in either form, and logits in place of probabilities."""
    names = tuple(names)
    left_out = set(fixed)
    for probability, logit in LOGITS.items():
        if probability in fixed:
            left_out.add(logit)
        if logit in names:
            left_out.add(probability)
    return tuple(name for name in names if name not in left_out)


def _check_params(
    family: type[TorchDistributionMixin], params: Sequence[str], fixed: Sequence[str]
) -> None:
    """Refuse parameters that equal chunks of a network's output can't give."""
    constrained: Any = family.arg_constraints
    owner = f"Conditional({family.__name__})"
    for name in params:
        if constraints.is_dependent(constrained[name]) or constrained[name].event_dim > 0:
            raise ValueError(
                f"{owner}: expected parameters of one number per event dim, got {name}, a vector "
                "or a matrix. Fix: a module of your own whose forward returns the distribution, or "
                "Categorical for levels."
            )
        if constrained[name].is_discrete:
            raise ValueError(
                f"{owner}: expected parameters that a network can give, got the integer {name}. "
                f"Fix: fixed={{{name!r}: 10}}."
            )
        if name in fixed:
            raise ValueError(
                f"{owner}: expected each parameter once, got {name} in params and in fixed. "
                "Fix: leave it out of params."
            )


class StandardNormal(SettingsFirst):
    r"""$p(z) = \mathcal N(z; 0, I_D)$, whatever the context.

    Args:
        dim: size D of a vector z, or the shape of an image z, such as `(1, 28, 28)`.

    Shape:
        c: nothing, or `(*batch, C)`  ->  a distribution with batch_shape `()` or `(*batch)`, event_shape
            `(dim,)`. The context of an image is an image, `(*batch, C, H, W)`.

    Raises:
        ValueError: for a size below 1.

    Example:
        >>> StandardNormal(8)().event_shape, StandardNormal((1, 4, 4))().event_shape
        (torch.Size([8]), torch.Size([1, 4, 4]))
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, dim: int | Sequence[int]):
        super().__init__()
        require_sizes("StandardNormal", dim=dim)
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)

    def extra_repr(self) -> str:
        shape = tuple(self.loc.shape)
        return str(shape[0]) if len(shape) == 1 else str(shape)

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        event_dim = self.loc.dim()
        batch_shape = torch.broadcast_shapes(*(c.shape[:-event_dim] for c in contexts))
        normal = dist.Normal(self.loc, self.scale, validate_args=False)
        if batch_shape:
            normal = normal.expand(batch_shape + self.loc.shape)
        return normal.to_event(event_dim)
