"""What a cell of the table must do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

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
