"""A number with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf, nan, sqrt
from statistics import NormalDist
from typing import Any

from torch import Tensor

from ..display.tabular import Tabular


@dataclass(frozen=True)
class Estimate(Tabular):
    """A Monte Carlo estimate, in nats per datum unless its owner says otherwise.

    Attributes:
        value: the estimate.
        stderr: its standard error, which is itself estimated.
        degrees: of freedom of the standard error: from n independent terms, n − 1; infinite where it is known.

    Example:
        >>> print(Estimate(3.14159, 0.0123))
        3.142 ± 0.012
    """

    value: float
    stderr: float
    degrees: float = inf

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        r"""$\hat\theta \pm t_\nu \cdot \mathrm{s.e.}$ with Student's t: where the expectation lies, so sure.

        It holds for terms that are normal, or many: the mean of two normal terms lies within 1.96 of its standard
        errors in 70 cases of 100, and takes 12.7 for 95. NaN for a single term. A share has an interval of its own.

        Args:
            level: of confidence, in (0, 1).

        Raises:
            ValueError: for another level.

        References:
            Student 1908, *The probable error of a mean*, Biometrika 6.

        Example:
            >>> low, high = Estimate(1.0, 0.1).interval()
            >>> round(low, 3), round(high, 3)
            (0.804, 1.196)
            >>> low, high = Estimate(1.0, 0.1, degrees=4).interval()
            >>> round(low, 3), round(high, 3)
            (0.722, 1.278)
        """
        check_level(level)
        half = student_quantile((1 + level) / 2, self.degrees) * self.stderr
        return self.value - half, self.value + half

    def scaled(self, factor: float, shift: float = 0.0) -> Estimate:
        r"""$a \hat\theta + b$, an estimate with as many degrees of freedom.

        Example:
            >>> print(Estimate(0.75, 0.01).scaled(2, -1))
            0.500 ± 0.020
        """
        return Estimate(
            factor * self.value + shift, abs(factor) * self.stderr, degrees=self.degrees
        )

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


@dataclass(frozen=True)
class Share(Estimate):
    r"""$a\,\hat p + b$, with $\hat p$ the share of n independent data for which something holds.

    Its interval is Wilson's: Student's has no width where the share is 0 or 1, whatever the number of data.

    Attributes:
        factor: a.
        shift: b.

    Example:
        >>> low, high = Share(1.0, 0.0, degrees=3).interval()  # all of four
        >>> round(low, 3), round(high, 3)
        (0.51, 1.0)
    """

    factor: float = 1.0
    shift: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        r"""$a I + b$, $I = (\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}) / (1 + z^2 / n)$.

        Args:
            level: of confidence, in (0, 1).

        Raises:
            ValueError: for another level.

        References:
            Wilson 1927, *Probable inference, the law of succession, and statistical inference*, JASA 22.
        """
        check_level(level)
        num = self.degrees + 1
        z = NormalDist().inv_cdf((1 + level) / 2)
        share = (self.value - self.shift) / self.factor
        centre = share + z**2 / (2 * num)
        half = z * sqrt(share * (1 - share) / num + (z / num) ** 2 / 4)
        ends = []
        for end in (centre - half, centre + half):
            ends.append(self.factor * end / (1 + z**2 / num) + self.shift)
        return min(ends), max(ends)

    def scaled(self, factor: float, shift: float = 0.0) -> Share:
        r"""$a' (a\,\hat p + b) + b'$, whose interval is that of the share, mapped."""
        return Share(
            factor * self.value + shift,
            abs(factor) * self.stderr,
            degrees=self.degrees,
            factor=factor * self.factor,
            shift=factor * self.shift + shift,
        )


def share_of(is_true: Tensor) -> Share:
    """The share of independent data `(N,)` for which something holds, 1, or does not, 0; ½ is a tie.

    Example:
        >>> import torch
        >>> print(share_of(torch.tensor([1.0, 1.0, 0.0, 0.0])))
        0.500 ± 0.289
    """
    mean = estimated(is_true.double()[None])
    return Share(mean.value, mean.stderr, mean.degrees)


def check_level(level: float) -> None:
    """Refuse a level of confidence outside (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(
            f"interval: expected a level of confidence in (0, 1), got {level}. Fix: level=0.95."
        )


def student_quantile(probability: float, degrees: float) -> float:
    r"""$F_\nu^{-1}(p)$ of Student's distribution with ν degrees of freedom; the normal one for infinitely many.

    Example:
        >>> round(student_quantile(0.975, 1), 3), round(student_quantile(0.975, inf), 3)
        (12.706, 1.96)
    """
    if isinf(degrees):
        return NormalDist().inv_cdf(probability)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def pooled_degrees(variances: Sequence[float], degrees: Sequence[float]) -> float:
    r"""$\nu = (\sum_i v_i)^2 / \sum_i (v_i^2 / \nu_i)$: degrees of freedom of a sum of independent variances.

    References:
        Satterthwaite 1946, *An approximate distribution of estimates of variance components*, Biometrics 2;
        Welch 1947, Biometrika 34.

    Example:
        >>> pooled_degrees([1.0, 1.0], [4, 4]), pooled_degrees([1.0, 0.0], [4, 4])
        (8.0, 4.0)
    """
    total = sum(variances)
    if total == 0:
        return float(sum(degrees))
    shares = [variance / total for variance in variances]
    terms = [share**2 / own for share, own in zip(shares, degrees, strict=True) if share > 0]
    spread = sum(terms)
    return 1 / spread if spread > 0 else inf


def sum_of_independent(*estimates: Estimate) -> Estimate:
    """The sum of estimates from independent draws, by Welch's degrees of freedom.

    Example:
        >>> sum_of_independent(Estimate(1.0, 3.0, 9), Estimate(2.0, 4.0)).stderr
        5.0
    """
    variances = [estimate.stderr**2 for estimate in estimates]
    degrees = [estimate.degrees for estimate in estimates]
    value = sum([estimate.value for estimate in estimates])
    return Estimate(value, sqrt(sum(variances)), pooled_degrees(variances, degrees))


def estimated(terms: Tensor) -> Estimate:
    r"""Mean of terms `(K, N)`, K draws for each of N data, and its standard error given these data.

    Several draws for each datum tell their noise from the spread of the data, which then adds nothing. One
    draw does not: the spread of all terms is an upper bound.

    Example:
        >>> import torch
        >>> estimated(torch.tensor([[1.0, 5.0], [1.0, 5.0]])).stderr, estimated(torch.tensor([[1.0, 5.0]]))
        (0.0, Estimate(value=3.0, stderr=2.0, degrees=1))
    """
    num_draws, num_data = terms.shape
    value = terms.mean().item()
    if num_draws * num_data < 2:
        return Estimate(value, nan, degrees=0)
    if num_draws == 1:
        variance = terms.var().item()
        return Estimate(value, sqrt(variance / num_data), degrees=num_data - 1)
    variances = terms.double().var(0)
    stderr = sqrt(variances.mean().item() / num_draws / num_data)
    return Estimate(value, stderr, _degrees_within(variances, num_draws))


def _degrees_within(variances: Tensor, num_draws: int) -> float:
    """`pooled_degrees` of the variances `(N,)` of K draws for each of N data."""
    total = variances.sum().item()
    own = num_draws - 1
    if not total > 0:
        return float(own * len(variances))
    return own / (variances / total).square().sum().item()


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
