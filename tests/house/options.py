"""Wrong options of a call, and the entries that have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from house.entries import OF_PRIOR, ON_DATA
from house.mistakes import Mistake


@dataclass(frozen=True)
class WrongOption:
    """Options of a call, and the entries that have them."""

    options: Mapping[str, Any]
    entries: tuple[str, ...]
    fix: str | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    harmless: tuple[str, ...] = ()

    answer = Mistake.answer


WITH_NUM = (
    *("draw", "nll", "surgery", "gaps", "unit_kl", "active_units", "collapse", "aggregate_test"),
    *("ais", "hmc", "check", "to_arviz", "encode", "reconstruct", "impute", "conditional_nll"),
    *("marginal_nll", "bdmc"),
)
WITH_SEED = tuple(
    name
    for name in (*ON_DATA, *OF_PRIOR)
    if name not in ("preflight", "draw", "decode", "traverse", "interpolate")
)
IN_OPTIONS: dict[str, WrongOption] = {
    "num=0": WrongOption({"num": 0}, WITH_NUM, "num="),
    "num as text": WrongOption({"num": "many"}, WITH_NUM, "num="),
    "num as a NumPy integer": WrongOption({"num": np.int64(4)}, WITH_NUM),
    "seed as a NumPy integer": WrongOption({"seed": np.int64(0)}, WITH_SEED),
    "seed as text": WrongOption({"seed": "first"}, WITH_SEED, "seed=0"),
    "a generator as the seed": WrongOption({"seed": torch.Generator()}, WITH_SEED, "seed=0"),
    "no seed": WrongOption({"seed": None}, WITH_SEED, "seed=0"),
}
