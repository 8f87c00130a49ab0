"""Small data of every kind, and the parser of what an experiment says of its model."""

from __future__ import annotations

from math import prod

import torch
from jsonargparse import ArgumentParser

from pyro_dgm.datasets import Data
from pyro_dgm.recipes import Adversarial, Recipe

KINDS = ("binary", "levels", "bytes", "counts", "real")
LEVELS = {"binary": 2, "levels": 5, "bytes": 256}


def synthetic(
    kind: str,
    shape: tuple[int, ...] = (4, 4),
    num_context: int = 0,
    num: int = 24,
    *,
    has_mask: bool = False,
) -> Data:
    """Data of a kind; the context of each datum is a vector and one number more, and a mask."""
    dim = prod(shape)
    if kind == "counts":
        x = torch.poisson(torch.full((num, dim), 3.0))
    elif kind == "real":
        x = 100 + 10 * torch.randn(num, dim)
    else:
        x = torch.randint(0, LEVELS[kind], (num, dim)).to(torch.get_default_dtype())
    if kind == "bytes":
        x = x.to(torch.uint8)
    values: tuple[torch.Tensor, ...] = ()
    if num_context:
        values = (torch.randn(num, num_context - 1), torch.randn(num, 1))
    if has_mask:
        observed = torch.rand(num, dim) < 0.7
        x = x.where(observed, torch.zeros_like(x))
        values = (*values, observed)
    context = dict.fromkeys(("train", "val", "test"), values)
    levels = LEVELS.get(kind)
    return Data(x, x, x, shape, levels, context=context, has_mask=has_mask)


def places(model: Recipe, adversarial: Adversarial | None = None) -> None:
    """The places of an experiment that hold recipes."""


def parser() -> ArgumentParser:
    """A parser of these places."""
    made = ArgumentParser(exit_on_error=False)
    made.add_function_arguments(places)
    return made


def parse(*flags: str):
    """The model and the adversarial training that flags say, after a round trip through YAML."""
    first = parser()
    dumped = first.dump(first.parse_args(list(flags)))
    again = parser()
    settings = again.parse_string(dumped)
    assert again.dump(settings) == dumped
    return again.instantiate(settings)
