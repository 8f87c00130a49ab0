"""How coarse the numbers of programs are, and a number one rounding next to another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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
