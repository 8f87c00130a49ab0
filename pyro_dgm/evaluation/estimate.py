"""A number with its standard error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist
from typing import Any

from torch import Tensor

from ..tabular import Tabular


@dataclass(frozen=True)
class Estimate(Tabular):
    """A Monte Carlo estimate, in nats per datum unless its owner says otherwise.

    Attributes:
        value: the estimate.
        stderr: its standard error.

    Example:
        >>> print(Estimate(3.14159, 0.0123))
        3.142 ± 0.012
    """

    value: float
    stderr: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the expectation lies with this confidence, if the mean is distributed normally.

        Example:
            >>> low, high = Estimate(1.0, 0.1).interval()
            >>> round(low, 3), round(high, 3)
            (0.804, 1.196)
        """
        half = NormalDist().inv_cdf((1 + level) / 2) * self.stderr
        return self.value - half, self.value + half

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def estimated(terms: Tensor) -> Estimate:
    r"""Mean of terms `(K, N)`, K draws for each of N data, and its standard error given these data.

    Several draws for each datum tell their noise from the spread of the data, which then adds nothing. One
    draw does not: the spread of all terms is an upper bound.

    Example:
        >>> import torch
        >>> estimated(torch.tensor([[1.0, 5.0], [1.0, 5.0]])), estimated(torch.tensor([[1.0, 5.0]]))
        (Estimate(value=3.0, stderr=0.0), Estimate(value=3.0, stderr=2.0))
    """
    num_draws, num_data = terms.shape
    if num_draws * num_data < 2:
        return Estimate(terms.mean().item(), nan)
    variance = terms.var(0).mean() / num_draws if num_draws > 1 else terms.var()
    return Estimate(terms.mean().item(), sqrt(variance.item() / num_data))


def estimate_columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under names of columns: an `Estimate` takes two, its value and its standard error.

    Example:
        >>> estimate_columns({"auc": Estimate(0.5, 0.1), "num": 9})
        {'auc': 0.5, 'auc_stderr': 0.1, 'num': 9}
    """
    columns = {}
    for name, value in values.items():
        if isinstance(value, Estimate):
            columns[name] = value.value
            columns[f"{name}_stderr"] = value.stderr
        else:
            columns[name] = value
    return columns
