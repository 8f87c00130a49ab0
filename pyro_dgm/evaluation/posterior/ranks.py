"""Ranks of the truth among draws of a guide: one result for all calibrations, and its tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...display.tabular import Tabular
from .uniformity import holm, kolmogorov, normal_scores, zero_means

LEVELS = (0.5, 0.8, 0.95)  # of the intervals whose coverage is printed
NUM_PRINTED = 10  # statistics, those of the smallest p-values
TIE = 32  # roundings within which two numbers are equal
DATA_PER_STATISTIC = 10  # that a test of all statistics together asks for


@dataclass(frozen=True)
class Ranks(Tabular):
    r"""Ranks of $f(x, z^*)$ among $f(x, z_l)$ of L draws of $q(z \mid x)$; abstract, one subclass for each choice of f.

    $z^*$ and the draws of an exact posterior are exchangeable given x: each statistic's rank is uniform on 0, …, L.
    Every statistic is tested by itself, and all together (`joint`); one correction goes over all p-values, in which
    the tests of all together have half of the level.

    Attributes:
        names: of the S statistics.
        ranks: how many of the L draws lie below $z^*$ `(N, S)`; ties are broken at random.
        uniform: $(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$ `(N, S)`, uniform on (0, 1) for an exact guide.
        num_draws: number L of draws.
    """

    names: tuple[str, ...]
    ranks: Tensor
    uniform: Tensor
    num_draws: int

    title: ClassVar[str]  # what is printed first
    region: ClassVar[str] = "interval"  # whose coverage it is

    @property
    def p_values(self) -> Tensor:
        """Kolmogorov's test of each statistic's uniformity, by itself `(S,)`."""
        p = [kolmogorov(u) for u in self.uniform.T]
        return torch.tensor(p, dtype=torch.float64, device="cpu")

    @cached_property
    def joint(self) -> dict[str, float]:
        r"""Test of all statistics together → p-value; none for fewer than 10 data per statistic.

        `means`: a $T^2$ of whether the normal scores $\Phi^{-1}(u)$ all have the mean 0, which sees a mean that is off.
        `variances`: the same of $\Phi^{-1}(|2 u - 1|)$, which is standard normal as well and grows from the middle to
        either end: it sees a scale that is off.
        """
        num, size = self._together.shape
        if size == 0 or num < DATA_PER_STATISTIC * size:
            return {}
        u = self._together
        folded = (2 * u - 1).abs()
        return {
            "means": zero_means(normal_scores(u)),
            "variances": zero_means(normal_scores(folded)),
        }

    @property
    def _together(self) -> Tensor:
        """The columns of `uniform` that `joint` tests together."""
        return self.uniform

    @property
    def _alone(self) -> Tensor:
        """p-values of the tests of each statistic by itself `(T, S)`."""
        return self.p_values[None]

    @property
    def _shares(self) -> list[float]:
        """What each test of `joint` has of the level, in units of what those of each statistic have together."""
        return [1 / len(self.joint) for _ in self.joint]

    @property
    def adjusted(self) -> Tensor:
        """p-values of the statistics after Holm's correction over these and those of `joint` `(S,)`."""
        alone, _ = self._corrected
        return alone.amin(0)

    @property
    def joint_adjusted(self) -> dict[str, float]:
        """p-values of `joint` after the same correction."""
        _, together = self._corrected
        return dict(zip(self.joint, together.tolist(), strict=True))

    @property
    def _corrected(self) -> tuple[Tensor, Tensor]:
        """p-values of all tests after Holm's correction: of each statistic by itself `(T, S)`, and of all together."""
        alone = self._alone
        together = torch.tensor(list(self.joint.values()), dtype=alone.dtype, device=alone.device)
        shares = torch.tensor(self._shares, dtype=alone.dtype, device=alone.device)
        p_values = torch.cat([alone.flatten(), together])
        adjusted = holm(
            p_values, torch.cat([torch.full_like(alone, 1 / alone.numel()).flatten(), shares])
        )
        return adjusted[: alone.numel()].view_as(alone), adjusted[alone.numel() :]

    @property
    def smallest(self) -> float:
        """The smallest p-value after Holm's correction: below α for an exact guide in at most a share α of runs."""
        return min([self.adjusted.min().item(), *self.joint_adjusted.values()])

    def passed(self, level: float = 0.01) -> bool:
        """Whether no test refuses at a level; an exact guide fails with at most that probability."""
        return self.smallest >= level

    def coverage(self, level: float) -> Tensor:
        r"""How often the central interval of that probability holds $z^*$ `(S,)`; below it: too narrow or shifted.

        The standard error is $\sqrt{\mathrm{level}\,(1 - \mathrm{level}) / N}$.
        """
        inside = (2 * self.uniform - 1).abs() <= level
        return inside.double().mean(0)

    def columns(self) -> dict[str, Any]:
        """One row per statistic: its p-value, the same after Holm's correction, and the coverage."""
        columns: dict[str, Any] = {
            "statistic": list(self.names),
            "p_value": self.p_values,
            "adjusted": self.adjusted,
        }
        for level in LEVELS:
            columns[f"coverage_{100 * level:.0f}"] = self.coverage(level)
        return columns

    def __str__(self) -> str:
        adjusted = self.adjusted
        lines = [
            f"{self.title}, {len(self.ranks)} data × {self.num_draws} draws, "
            f"{len(self.names)} statistics, "
            f"smallest p after Holm's correction {self.smallest:.2g}",
            _header(self.region),
        ]
        p = self.p_values
        coverages = [self.coverage(level) for level in LEVELS]
        for i in p.argsort()[:NUM_PRINTED].tolist():
            line = f"  {self.names[i]:<14}{p[i]:>10.2g}{adjusted[i]:>10.2g}"
            lines.append(line + _percent([coverage[i] for coverage in coverages]))
        for name, p_value in self.joint.items():
            lines.append(
                f"  {'all: ' + name:<14}{p_value:>10.2g}{self.joint_adjusted[name]:>10.2g}"
            )
        return "\n".join(lines)


def _percent(shares: list[Tensor]) -> str:
    """Shares in the columns of the printed table."""
    cells = [f"{share:>14.1%}" for share in shares]
    return "".join(cells)


def _header(region: str) -> str:
    """What stands above the columns of the printed table."""
    columns = ["  statistic     ", "         p", "      Holm"]
    for level in LEVELS:
        columns.append(f"{f'{level:.0%} {region}':>14}")
    return "".join(columns)


def rank_among(draws: Tensor, truth: Tensor, margin: Tensor) -> Tensor:
    """How many draws `(L, …)` lie below the truth `(…)`; a tie is below with a place drawn at random.

    Args:
        draws: one statistic or more of the draws.
        truth: the same of the truth.
        margin: how close to the truth is a tie `(…)`: discrete latents tie up to rounding.
    """
    below = (draws < truth - margin).sum(0)
    not_above = (draws <= truth + margin).sum(0)
    num_places = not_above - below + 1
    place = torch.rand_like(truth) * num_places
    return below + place.long()


def spread_ranks(ranks: Tensor, num_draws: int) -> Tensor:
    r"""$(\mathrm{rank} + v) / (L + 1)$ with $v \sim U(0, 1)$, float64 on the host."""
    within = torch.rand(ranks.shape, dtype=torch.float64, device="cpu")
    return (ranks.cpu() + within) / (num_draws + 1)
