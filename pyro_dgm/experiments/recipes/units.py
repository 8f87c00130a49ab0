"""What stands between data and networks: data in units that suit a network, and its outputs in those of the data."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from ...display.representation import SettingsFirst
from ...programs.networks.units import Rescale
from ..data.datasets import Data, Kind

ENOUGH_ROWS = 50_000  # for a mean and a standard deviation

# The likelihood of each kind of data where none is named, see `Automatic`.
FITTING = {
    Kind.BINARY: "Bernoulli",
    Kind.LEVELS: "DiscretizedLogistic",
    Kind.COUNTS: "NegativeBinomial",
    Kind.REAL: "Normal",
}
WORDS = {
    constraints.boolean: "zeros and ones",
    constraints.unit_interval: "numbers from 0 to 1",
    constraints.nonnegative_integer: "integers from 0",
}


class Unit(SettingsFirst):
    r"""A mean m and a standard deviation s of training data, in the state dict; abstract.

    Args:
        loc: m, one number or one per column.
        scale: s.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("loc", loc.clone())
        self.register_buffer("scale", scale.clone())

    def extra_repr(self) -> str:
        """How many columns have a unit of their own."""
        return f"{tuple(self.loc.shape)}"


class Standardize(Unit):
    r"""$x \mapsto (x - m) / s$ with the mean and the standard deviation of training data, in the state dict.

    Args:
        loc: m, one number or one per column.
        scale: s.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Standardized data, of the same shape."""
        return (x - self.loc) / self.scale


class Unstandardize(Unit):
    r"""$e \mapsto m + s \odot e$: a network's output in the unit of the data; the inverse of `Standardize`.

    Args:
        loc: m, one number or one per column.
        scale: s.
    """

    def forward(self, e: Tensor) -> Tensor:
        """Of the same shape."""
        return self.loc + self.scale * e


class Log1p(nn.Module):
    r"""$x \mapsto \log(1 + x)$, of counts."""

    def forward(self, x: Tensor) -> Tensor:
        """Floating point, of the same shape."""
        return x.log1p()


class LocationScale(SettingsFirst):
    r"""$x = m + s \odot e$ with $e \sim p(e \mid c)$ of a location-scale family: the same family, in the data's unit.

    Args:
        standardized: conditional for e, of a family with `loc` and `scale`.
        loc: m, of the training data.
        scale: s.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, standardized: nn.Module, loc: Tensor, scale: Tensor):
        super().__init__()
        self.standardized = standardized
        self.register_buffer("loc", loc.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, *contexts: Tensor) -> dist.TorchDistribution:
        """The distribution of x; its density is exact."""
        distribution = self.standardized(*contexts)
        base: Any = distribution.base_dist
        parameters = {name: getattr(base, name) for name in base.arg_constraints}
        parameters["loc"] = self.loc + self.scale * base.loc
        parameters["scale"] = self.scale * base.scale
        return type(base)(**parameters).to_event(distribution.reinterpreted_batch_ndims)


class OnData(nn.Sequential):
    """The first layer sees the data alone, the second one its output and the context."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Of data and context, what the last layer makes."""
        first, second, *rest = self
        features = second(first(x), *context)
        for layer in rest:
            features = layer(features)
        return features


class Chain(nn.Sequential):
    """The first layer sees all arguments, each further one what the layer before it makes."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the last layer makes."""
        first, *rest = self
        features = first(*inputs)
        for layer in rest:
            features = layer(features)
        return features


def train_units(data: Data) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the training data: of each column of a table, of all pixels of images.

    Of up to 50,000 rows, and of what is observed in them. Columns that are constant keep their unit.
    """
    x = typical_rows(data, ENOUGH_ROWS)
    observed = torch.ones_like(x)
    if data.has_mask:
        observed = data.context["train"][-1][:ENOUGH_ROWS].to(x)
    is_table = len(data.event_shape) == 1
    dims = (0,) if is_table else (0, 1)
    num = observed.sum(dims).clamp(min=1)
    loc = (observed * x).sum(dims) / num
    spread = (observed * (x - loc).square()).sum(dims).div(num).sqrt()
    return loc, spread.where(spread > 0, 1.0)


def num_context(data: Data) -> int:
    """Numbers in the context of a datum that models see, each tensor of it a matrix; a mask is none of it.

    Raises:
        ValueError: for a context of another shape.
    """
    for value in data.context.get("train", ()):
        if value.dim() != 2:
            raise ValueError(
                f"context: expected matrices (N, C), got {tuple(value.shape)}. "
                "Fix: one_hot(labels) for classes, covariates[:, None] for one number per datum."
            )
    return data.num_context - data.dim if data.has_mask else data.num_context


def num_seen(data: Data) -> int:
    """Numbers beside a datum that encoders see: its context, and its mask if it has one."""
    num_context(data)  # it checks the shapes
    return data.num_context


def require_complete(owner: str, data: Data) -> None:
    """Refuse data with missing numbers where nothing can leave them out.

    Raises:
        ValueError: with the fix.
    """
    if data.has_mask:
        raise ValueError(
            f"{owner}: expected data without missing numbers, got a mask of them. "
            "Fix: --model=VAE, whose likelihood leaves out what is missing."
        )


def require_support(name: str, data: Data, support: Constraint) -> None:
    """Refuse data to which a likelihood gives no probability, with the flags that change either.

    Args:
        name: of the likelihood.
        data: a data set; what is binarized as it is seen is zeros and ones by then.
        support: of its distribution.
    """
    if data.dynamic or bool(support.check(data.train).all()):
        return
    fix = f"--model.likelihood={FITTING[data.kind]}"
    if support is constraints.boolean and "binarize" in signature(type(data)).parameters:
        fix = f"{fix}, or --data.binarize=dynamic"
    low, high = data.train.min(), data.train.max()
    raise ValueError(
        f"model.likelihood: expected {WORDS.get(support, support)} for {name}, got {data.kind.value} data "
        f"from {low:g} to {high:g}. Fix: {fix}."
    )


def unit_layer(data: Data) -> nn.Module | None:
    """What puts data into the units of a network, by their kind; zeros and ones stay as they are."""
    if data.kind is Kind.BINARY:
        return None
    if data.levels is not None:
        return Rescale(0, data.levels - 1)
    if data.kind is Kind.COUNTS:
        return Log1p()
    return Standardize(*train_units(data))


def on_data(data: Data, net: nn.Module, *layers: nn.Module) -> nn.Module:
    """A network whose first argument is data as they are, and whose further ones are the context."""
    unit = unit_layer(data)
    if num_seen(data) and (unit is not None or layers):
        return OnData(unit or nn.Identity(), net, *layers)
    chain = [layer for layer in (unit, net, *layers) if layer is not None]
    return chain[0] if len(chain) == 1 else nn.Sequential(*chain)


def typical_rows(data: Data, num: int) -> Tensor:
    """The first training data as the programs see them; grey intensities in [0, 1] where they are binarized."""
    rows = torch.as_tensor(data.train[:num])
    is_bytes = rows.dtype is torch.uint8
    rows = rows.to(torch.get_default_dtype())
    return rows / 255 if data.dynamic and is_bytes else rows
