"""How a result shows itself: text when printed, a table when asked for one or shown in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas


class Tabular:
    """A result that `to_dataframe` turns into a table; abstract.

    By default a dataclass with vectors of one length N becomes N rows, and one without becomes a single row of its
    numbers and words. A result of another shape says its own `columns`.
    """

    def columns(self) -> Mapping[str, Any]:
        """Name → column: arrays of one length, or one value for each name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        vectors = {name: value for name, value in values.items() if _is_vector(value)}
        if vectors:
            return vectors
        return {name: value for name, value in values.items() if _is_scalar(value)}

    def to_dataframe(self) -> pandas.DataFrame:
        """The result as a table."""
        import pandas

        columns = {name: _as_column(value) for name, value in self.columns().items()}
        if all(np.ndim(column) == 0 for column in columns.values()):
            return pandas.DataFrame([columns])
        return pandas.DataFrame(columns)

    def _repr_html_(self) -> str:
        table = self.to_dataframe().to_html(max_rows=20, border=0, notebook=True)
        return f"<pre>{escape(str(self))}</pre>\n{table}"


def _is_vector(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim == 1


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str)) or (
        isinstance(value, Tensor) and value.ndim == 0
    )


def _as_column(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
