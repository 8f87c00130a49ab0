r"""Gradients of the joint density for chains, which take thousands: by autograd, or as kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...inference.training.compiled.functions import RepeatedFunction
from ...inference.training.compiled.options import check_compile
from .coordinates import Posterior
from .joint import JointPosterior
from .transitions import value_and_gradient

MANY = 5_000  # gradients, on which kernels save what it takes to build them

Compile = bool | str


def whether_to_compile(compile: Compile, num: int) -> bool | None:
    """What `compile=` asks for: kernels, none, or some where there can be, which is what `"auto"` is for many calls.

    Args:
        compile: the option.
        num: how many gradients are expected.

    Example:
        >>> whether_to_compile("auto", 100), whether_to_compile("auto", 10_000), whether_to_compile(True, 100)
        (False, None, True)
    """
    check_compile(compile)
    if isinstance(compile, bool):
        return compile
    return None if num >= MANY else False


def gradient_of(posterior: Posterior | JointPosterior, *, compile: bool | None) -> RepeatedFunction:
    r"""$(\zeta, x) \mapsto (\log p(x, \zeta), \nabla_\zeta \log p(x, \zeta))$ for any data that are as many.

    Args:
        posterior: of some of the data.
        compile: see `RepeatedFunction`.
    """

    def evaluate(zeta: Tensor, *batch: Any) -> tuple[Tensor, Tensor]:
        return value_and_gradient(posterior.given(batch).log_joint, zeta)

    return RepeatedFunction(evaluate, (posterior.model,), compile=compile)
