"""What an optimality report refuses of its arguments, each with the fix."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.distributions import Distribution

from ...inference.data.tensors import check_data as check_finite
from ..checks import describe
from ..fitting import Batch, CriticFit
from ..games import Game
from ..penalties import Penalty


def check_generator(generator: Any) -> None:
    """Refuse what neither generates nor holds fakes: a class, a distribution, a trainer."""
    if isinstance(generator, (type, Distribution)) or not (
        callable(generator) or isinstance(generator, (Tensor, np.ndarray, list))
    ):
        raise TypeError(
            "optimality_report: expected a program that generates, or fakes (M, *event), "
            f"got {describe(generator)}. Fix: vae.generator or trainer.generator; "
            "distribution.sample((10_000,)); an instance in place of a class."
        )


def check_data(data: Any) -> None:
    """Refuse a program or a critic in place of the data."""
    if callable(data):
        raise TypeError(
            f"optimality_report: expected the generator and then the data, got {describe(data)} "
            "as data. Fix: optimality_report(generator, x, critic)."
        )


def check_builder(critic: Any) -> None:
    """Refuse a critic, or data, in place of a function that builds one."""
    if isinstance(critic, nn.Module):
        raise TypeError(
            "optimality_report: expected a function that builds a fresh critic, "
            f"got {describe(critic)}, which may have seen the held-out data. "
            "Fix: critic=lambda: mlp(2, 64, 1)."
        )
    if not callable(critic):
        raise TypeError(
            "optimality_report: expected a function that builds a fresh critic, "
            f"got {describe(critic)}. Fix: optimality_report(generator, x, lambda: mlp(2, 64, 1)), "
            "with (x, c) in place of x for a context."
        )


def check_fit(fit: Any) -> None:
    """Refuse a class, a game or a penalty in place of a fit."""
    fix = "fit=AdamFit()"
    if isinstance(fit, type) and issubclass(fit, CriticFit):
        fix = f"fit={fit.__name__}()"
    if isinstance(fit, (type, nn.Module, Game, Penalty)) or not callable(fit):
        raise TypeError(
            f"optimality_report: expected a fit of a critic, got {describe(fit)}. Fix: {fix}."
        )


def check_alike(real: Batch, y: Tensor) -> None:
    """Refuse fakes that no critic could compare with the data."""
    x, *context = real
    event = tuple(y.shape[1:])
    if tuple(x.shape[1:]) != event or x.dtype != y.dtype:
        raise ValueError(
            "optimality_report: expected data and fakes of one event shape and dtype, "
            f"got {tuple(x.shape[1:])} {x.dtype} and {event} {y.dtype}. "
            f"Fix: data.reshape(len(data), *{event}).to({y.dtype})."
        )
    has_rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in context)
    if has_rows and len(y) != len(x):
        raise ValueError(
            f"optimality_report: expected one fake per row of the context, {len(x)}, got {len(y)}. "
            "Fix: optimality_report(generator, (x, c), critic), "
            "or the context that the fakes were made under."
        )
    check_finite(y, "optimality_report: fakes")
