"""What a cell of the table must do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_dgm.diagnostics import IntegerWarning


def expect(answer: str | None, run: Callable[[], Any]) -> Any:
    """The result if there is no answer to expect; else the error, which names what, and the fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegerWarning)  # a warning is no answer
        warnings.filterwarnings("ignore", message=".*gradient.*")
        if answer is None:
            return run()
        with pytest.raises((TypeError, ValueError)) as caught:
            run()
    words = str(caught.value)
    assert "expected" in words
    assert "got" in words
    assert answer in words.partition("Fix:")[2], words
    return None


def numbers(result: Any) -> list[Tensor]:
    """All numbers of a result, in their order; the seconds that a fit took are none of it."""
    if isinstance(result, (Tensor, int, float)):
        return [torch.as_tensor(result, dtype=torch.float64)]
    if is_dataclass(result):
        result = {f.name: getattr(result, f.name) for f in fields(result)}
    if isinstance(result, Mapping):
        result = [value for name, value in result.items() if name != "seconds"]
    found = []
    if isinstance(result, (list, tuple)):
        for value in result:
            found += numbers(value)
    return found
