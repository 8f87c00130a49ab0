"""Grey levels as zeros and ones: by a draw, in each epoch or once, or by a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from ...inference.data.binarization import binarize
from ...inference.process.states import fork_rng

Tensors = dict[str, Tensor]


def binarized(how: str | float, x: Tensors, levels: int | None, seed: int) -> tuple[Tensors, str]:
    """All splits as zeros and ones, or the training data as bytes or grey values in [0, 1], and a line that says so.

    Args:
        how: `dynamic`, `fixed`, or a threshold in (0, 1) of the highest level.
        x: levels 0, …, L − 1, or real numbers in [0, 1].
        levels: number L of levels.
        seed: of the fixed draws.

    Raises:
        ValueError: for anything else.
    """
    if how in ("dynamic", "fixed"):
        grey = {split: _grey(part, levels) for split, part in x.items()}
        drawn = {split: part for split, part in grey.items() if how == "fixed" or split != "train"}
        with fork_rng(seed=seed):
            for split in sorted(drawn):
                grey[split] = binarize(grey[split]).to(torch.get_default_dtype())
        text = "training data are drawn anew in each epoch, others once"
        return grey, f"binarize: {text if how == 'dynamic' else 'one fixed draw'}, seed {seed}"
    threshold = _as_threshold(how)
    found = {}
    for split, part in x.items():
        above = _grey(part, levels) > (threshold * 255 if _is_bytes(part, levels) else threshold)
        found[split] = above.to(torch.get_default_dtype())
    return found, f"binarize: 1 above {threshold:g} of the highest level (--data.binarize)"


def _grey(part: Tensor, levels: int | None) -> Tensor:
    """Bytes as they are, other levels and real numbers as values in [0, 1]."""
    if _is_bytes(part, levels):
        return part
    grey = part if levels is None else part.to(torch.get_default_dtype()) / (levels - 1)
    if not bool(((grey >= 0) & (grey <= 1)).all()):
        raise ValueError(
            f"data.binarize: expected levels, or numbers from 0 to 1, got numbers from "
            f"{part.min():g} to {part.max():g}. Fix: --data.levels=256, or --data.binarize=no."
        )
    return grey


def _is_bytes(part: Tensor, levels: int | None) -> bool:
    return part.dtype is torch.uint8 and levels == 256


def _as_threshold(how: str | float) -> float:
    try:
        threshold = float(how)
    except ValueError:
        threshold = -1.0
    if not 0 < threshold < 1:
        raise ValueError(
            f"data.binarize: expected no, dynamic, fixed or a threshold between 0 and 1, got {how!r}. "
            "Fix: --data.binarize=dynamic."
        )
    return threshold
