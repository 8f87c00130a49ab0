"""Which modes of a known mixture a sampler reaches, beside what a perfect one would show."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, nan
from typing import Any

import torch
from torch import Tensor

from ..estimate import Estimate
from .pools import distance_blocks, two_samples

SIGMAS = 3.0  # a sample within so many standard deviations of a mode is of high quality


@dataclass(frozen=True)
class ModeCoverage:
    r"""Modes captured, high-quality share and reverse KL of a sampler, for M equally probable normal modes.

    Attributes:
        counts: high-quality samples nearest to each mode `(M,)`; a mode is captured if it has one.
        high_quality: share of the samples within 3σ of a mode, and its standard error.
        reverse_kl: $KL(\hat p \| U) = \log M + \sum_m \hat p_m \log \hat p_m$ of the modes' shares among the
            high-quality samples, in nats, and its standard error; from 0 to log M, NaN without such samples.
        ceiling: high-quality share of a perfect sampler, $P(\chi^2_D \le 9)$, for modes at least 6σ apart.
        num: number of samples.
    """

    counts: Tensor
    high_quality: Estimate
    reverse_kl: Estimate
    ceiling: float
    num: int

    @property
    def captured(self) -> int:
        """Number of modes with a high-quality sample."""
        return int((self.counts > 0).sum())

    @property
    def floor(self) -> float:
        """Expected reverse KL of equal shares with as many high-quality samples: shares of few samples are noisy."""
        return expected_kl(len(self.counts), int(self.counts.sum()))

    def __str__(self) -> str:
        num_modes = len(self.counts)
        return (
            f"{self.captured} of {num_modes} modes, high quality {self.high_quality.value:.2%} ± "
            f"{self.high_quality.stderr:.2%} (perfect {self.ceiling:.2%}), reverse KL {self.reverse_kl.value:.4f} ± "
            f"{self.reverse_kl.stderr:.4f} nats (equal shares {self.floor:.4f}, one mode {log(num_modes):.4f}; "
            f"{self.num} samples)"
        )


def mode_coverage(*, fake: Any, centres: Any, sd: float) -> ModeCoverage:
    r"""Assign every sample to its nearest mode; those within 3σ of it are of high quality.

    Args:
        fake: samples `(n, *event)`, an array or a tensor.
        centres: of the modes `(M, *event)`.
        sd: standard deviation σ of every mode in every dim.

    Raises:
        ValueError: for samples and centres of different shapes, NaN, or `sd` not above 0.

    References:
        Srivastava et al. 2017, *VEEGAN*, arXiv:1705.07761; Lin et al. 2018, *PacGAN*, arXiv:1712.04086.

    Example:
        >>> centres = torch.tensor([[-1.0], [1.0]])
        >>> found = mode_coverage(fake=centres[:1].expand(100, 1), centres=centres, sd=0.1)
        >>> found.captured, round(found.reverse_kl.value, 4), round(found.floor, 4)
        (1, 0.6931, 0.005)
    """
    if not sd > 0:
        raise ValueError(f"mode_coverage: expected sd > 0, got {sd}.")
    centres, fake = two_samples("mode_coverage", centres, fake, at_least=1)
    found = [distances.min(1) for _, distances in distance_blocks(fake, centres)]
    good = torch.cat([f.values for f in found]) <= SIGMAS * sd
    counts = torch.cat([f.indices for f in found])[good].bincount(minlength=len(centres)).cpu()
    share = good.double().mean().item()
    return ModeCoverage(
        counts=counts,
        high_quality=Estimate(share, (share * (1 - share) / len(fake)) ** 0.5),
        reverse_kl=_reverse_kl(counts),
        ceiling=torch.special.gammainc(
            *torch.tensor([centres.shape[1] / 2, SIGMAS**2 / 2]).double()
        ).item(),
        num=len(fake),
    )


def label_coverage(*, labels: Any, num_modes: int) -> ModeCoverage:
    r"""The same from a classifier's labels of the samples, where modes are classes, as the 1,000 of stacked digits.

    Every sample counts as of high quality. The classifier's own errors reach modes that the sampler does not: compare
    with the labels that it gives to real data.

    Args:
        labels: predicted classes 0, …, M − 1 `(n,)`, an array or a tensor.
        num_modes: number M of classes.

    Raises:
        ValueError: for no labels, or others than 0, …, M − 1.

    Example:
        >>> label_coverage(labels=[0, 0, 2, 2], num_modes=4).captured
        2
    """
    labels = torch.as_tensor(labels).flatten().long().cpu()
    if len(labels) < 1 or not 0 <= int(labels.min()) <= int(labels.max()) < num_modes:
        raise ValueError(
            f"label_coverage: expected labels 0, …, {num_modes - 1}, got {sorted(set(labels.tolist()))[:12]}."
        )
    counts = labels.bincount(minlength=num_modes)
    return ModeCoverage(
        counts, Estimate(1.0, 0.0), _reverse_kl(counts), ceiling=1.0, num=len(labels)
    )


def _reverse_kl(counts: Tensor) -> Estimate:
    """From counts of the modes; the error is the delta method's, or that of equal shares, where it is larger."""
    num, num_modes = int(counts.sum()), len(counts)
    if num == 0:
        return Estimate(nan, nan)
    share = counts.double() / num
    log_ratio = (share.clamp(min=1e-300) * num_modes).log()
    kl = (share * log_ratio).sum().item()
    first_order, by_chance = (
        (share * (log_ratio - kl).square()).sum().item() / num,
        (num_modes - 1) / (2 * num**2),
    )
    return Estimate(kl, max(first_order - by_chance, by_chance) ** 0.5)


def expected_kl(num_modes: int, num: int) -> float:
    r"""$E\,KL(\hat p \| U)$ of the shares of `num` draws of M equally probable modes, by the binomial law. Exact.

    About $(M - 1) / (2 \cdot \mathrm{num})$; NaN without draws.

    Example:
        >>> round(expected_kl(8, 2472), 4), round(expected_kl(25, 2472), 4)
        (0.0014, 0.0049)
    """
    if num < 1:
        return nan
    if num_modes < 2:
        return 0.0
    k = torch.arange(1, num + 1, dtype=torch.float64)
    n = torch.tensor(num, dtype=torch.float64)
    log_choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    log_mass = (
        log_choose
        - k * log(num_modes)
        + (n - k) * torch.log1p(torch.tensor(-1 / num_modes).double())
    )
    return log(num_modes) + num_modes * (log_mass.exp() * k / n * (k / n).log()).sum().item()
