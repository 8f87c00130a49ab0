"""The likelihood of each test datum, as a file of a run and back."""

from __future__ import annotations

from dataclasses import fields
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...evaluation.likelihood.results import NLL
from ...inference.sites.measures import Measure


def score_content(score: NLL) -> bytes:
    """The bytes of an npz file that holds a likelihood, datum by datum."""
    arrays: dict[str, Any] = {}
    for field in fields(score):
        value = getattr(score, field.name)
        if isinstance(value, Tensor):
            value = value.cpu().numpy()
        elif isinstance(value, Measure):
            value = value.value
        arrays[field.name] = np.asarray(value)
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def score_of(content: bytes) -> NLL:
    """What `score_content` wrote."""
    with np.load(BytesIO(content)) as arrays:
        found = {name: arrays[name] for name in arrays}
    values = {name: torch.from_numpy(value) for name, value in found.items() if value.ndim}
    return NLL(
        **values,
        num=int(found["num"]),
        kind=str(found["kind"]),
        measure=Measure(str(found["measure"])),
    )
