"""Which modes of a known mixture a sampler reaches, beside what a perfect one would show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, nan
from typing import Any

import torch
from torch import Tensor

from ...display.tabular import Tabular
from ..estimate import Estimate, Share, estimate_columns
from .pools import as_numbers, distance_blocks, two_samples

SIGMAS = 3.0  # a sample within so many standard deviations of a mode is of high quality


@dataclass(frozen=True)
class ModeCoverage(Tabular):
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
        """Expected reverse KL of equal shares with as many high-quality samples, whose shares are noisy."""
        return expected_kl(len(self.counts), int(self.counts.sum()))

    def columns(self) -> Mapping[str, Any]:
        """One row: modes captured of all, high quality and reverse KL with what bounds them."""
        return estimate_columns(
            {
                "captured": self.captured,
                "num_modes": len(self.counts),
                "high_quality": self.high_quality,
                "ceiling": self.ceiling,
                "reverse_kl": self.reverse_kl,
                "floor": self.floor,
                "num": self.num,
            }
        )

    def __str__(self) -> str:
        num_modes = len(self.counts)
        quality = self.high_quality
        kl = self.reverse_kl
        return (
            f"{self.captured} of {num_modes} modes, "
            f"high quality {quality.value:.2%} ± {quality.stderr:.2%} "
            f"(perfect {self.ceiling:.2%}), "
            f"reverse KL {kl.value:.4f} ± {kl.stderr:.4f} nats "
            f"(equal shares {self.floor:.4f}, one mode {log(num_modes):.4f}; {self.num} samples)"
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
        raise ValueError(
            f"mode_coverage: expected sd > 0, got {sd}. "
            "Fix: sd=0.05, the standard deviation of every mode."
        )
    roles = ("centres", "fake")
    centres, fake = two_samples("mode_coverage", centres, fake, at_least=1, roles=roles)
    distances, modes = _nearest_modes(fake, centres)
    is_good = distances <= SIGMAS * sd
    counts = modes[is_good].bincount(minlength=len(centres)).cpu()
    share = is_good.double().mean().item()
    return ModeCoverage(
        counts=counts,
        high_quality=Share(share, (share * (1 - share) / len(fake)) ** 0.5, len(fake) - 1),
        reverse_kl=_reverse_kl(counts),
        ceiling=_chi2_cdf(SIGMAS**2, dim=centres.shape[1]),
        num=len(fake),
    )


def _nearest_modes(fake: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the nearest centre and its index, of each sample `(n,)`."""
    distances = []
    modes = []
    for _, block in distance_blocks(fake, centres):
        nearest = block.min(1)
        distances.append(nearest.values)
        modes.append(nearest.indices)
    return torch.cat(distances), torch.cat(modes)


def _chi2_cdf(value: float, dim: int) -> float:
    r"""$P(\chi^2_D \le v)$, the regularized incomplete gamma function at D/2 and v/2."""
    half_dim, half_value = torch.tensor([dim / 2, value / 2], dtype=torch.float64, device="cpu")
    return torch.special.gammainc(half_dim, half_value).item()


def label_coverage(*, labels: Any, num_modes: int) -> ModeCoverage:
    r"""Modes captured and reverse KL from a classifier's labels of the samples: modes are classes.

    Every sample counts as of high quality. The classifier's own errors reach modes that the sampler does not:
    compare with the labels that it gives to real data.

    Args:
        labels: predicted classes 0, …, M − 1 `(n,)`, an array or a tensor.
        num_modes: number M of classes.

    Raises:
        TypeError: for labels that are no numbers.
        ValueError: for no labels, or others than 0, …, M − 1.

    Example:
        >>> label_coverage(labels=[0, 0, 2, 2], num_modes=4).captured
        2
    """
    classes = as_numbers("label_coverage: labels", labels).flatten().long().cpu()
    if len(classes) < 1 or not 0 <= int(classes.min()) <= int(classes.max()) < num_modes:
        raise ValueError(
            f"label_coverage: expected labels 0, …, {num_modes - 1}, "
            f"got {classes.unique().tolist()[:12]}. Fix: num_modes=M, labels=scores.argmax(-1)."
        )
    counts = classes.bincount(minlength=num_modes)
    return ModeCoverage(
        counts=counts,
        high_quality=Share(1.0, 0.0, len(classes) - 1),
        reverse_kl=_reverse_kl(counts),
        ceiling=1.0,
        num=len(classes),
    )


def _reverse_kl(counts: Tensor) -> Estimate:
    """From counts of the modes; the error is the delta method's, or that of equal shares if it is larger."""
    num = int(counts.sum())
    num_modes = len(counts)
    if num == 0:
        return Estimate(nan, nan, degrees=0)
    share = counts.double() / num
    log_ratio = (share.clamp(min=1e-300) * num_modes).log()
    kl = (share * log_ratio).sum().item()
    squared = (log_ratio - kl).square()
    first_order = (share * squared).sum().item() / num
    by_chance = (num_modes - 1) / (2 * num**2)
    variance = max(first_order - by_chance, by_chance)
    return Estimate(kl, variance**0.5, degrees=num - 1)


def expected_kl(num_modes: int, num: int) -> float:
    r"""$E\,KL(\hat p \| U)$ of the shares of `num` draws of M equally probable modes. Exact.

    The count of a mode is binomial. About $(M - 1) / (2 \cdot \mathrm{num})$; NaN without draws.

    Example:
        >>> round(expected_kl(8, 2472), 4), round(expected_kl(25, 2472), 4)
        (0.0014, 0.0049)
    """
    if num < 1:
        return nan
    if num_modes < 2:
        return 0.0
    count = torch.arange(1, num + 1, dtype=torch.float64, device="cpu")
    share = count / num
    mass = _log_binomial(count, num, num_modes).exp()
    return log(num_modes) + num_modes * (mass * share * share.log()).sum().item()


def _log_binomial(count: Tensor, num: int, num_modes: int) -> Tensor:
    """Log probability of counts of one mode among `num` draws of M equally probable ones."""
    total = torch.tensor(num, dtype=torch.float64, device=count.device)
    others = total - count
    log_other_mode = torch.log1p(torch.tensor(-1 / num_modes, device=count.device).double())
    log_choose = torch.lgamma(total + 1) - torch.lgamma(count + 1) - torch.lgamma(others + 1)
    return log_choose - count * log(num_modes) + others * log_other_mode
