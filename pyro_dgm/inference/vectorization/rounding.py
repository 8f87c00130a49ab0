"""How coarse the numbers of programs are, a number one rounding next to another, and which scores are equal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Scores = dict[tuple[str, str], Tensor]  # (role, site) → `(K, *plates, N)`


def coarsest_rounding(values: list[Tensor], *programs: Any) -> float:
    """The relative error of the coarsest numbers of the programs; TensorFloat-32 has ten bits."""
    found = [torch.finfo(value.dtype).eps for value in values if value.is_floating_point()]
    for program in programs:
        if isinstance(program, nn.Module):
            floats = [p for p in program.parameters() if p.is_floating_point()]
            found += [torch.finfo(p.dtype).eps for p in floats]
            if torch.backends.cuda.matmul.allow_tf32 and any(p.is_cuda for p in floats):
                found.append(2.0**-10)
    return max(found, default=torch.finfo(torch.get_default_dtype()).eps)


def nudge(value: Any, step: float) -> Any:
    """A number next to it; integers and labels stay."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value * step
    return value


def agree(found: Scores, truth: Scores, rounding: float, unrest: Scores | None = None) -> bool:
    r"""Whether scores are equal, up to $\sqrt{\varepsilon} (1 + |\log p|)$ and what the networks' rounding explains.

    The root of the dtype's ε is 3.5e-4 in float32: a sum over thousands of dims loses 1e-6 of itself by its order, and
    a network that means something else is off by nats. Where a score is the small rest of large terms, `unrest` says
    how far one rounding of z and x moves it.
    """
    if found.keys() != truth.keys():
        return False
    for key, expected in truth.items():
        try:
            got, expected = torch.broadcast_tensors(found[key].double(), expected.double())
        except RuntimeError:
            return False
        if got.shape != truth[key].shape:
            return False
        limit = rounding**0.5 * (1 + expected.abs())
        if unrest is not None:
            limit = limit + unrest[key]
        is_close = ((got - expected).abs() <= limit) | (got == expected)
        if not bool((is_close | (got.isnan() & expected.isnan())).all()):
            return False
    return True
