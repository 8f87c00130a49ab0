"""How well Markov chains mix: rank-normalized R-hat and effective sample size of all quantities in one batched pass."""

from __future__ import annotations

from math import log10

import torch
from torch import Tensor


def rhat(draws: Tensor) -> Tensor:
    r"""Rank-normalized split $\hat R$: chains that explore one law have $\hat R < 1.01$; above 1.05 they do not mix.

    The larger of two: of the ranks, which sees different locations, and of the ranks of distances from the median,
    which sees different scales. The number of `arviz.rhat`.

    Args:
        draws: `(chains, draws, *rest)`, at least 4 draws.

    Shape:
        `(chains, draws, *rest)`  ->  `(*rest)`, float64; NaN for a quantity that never moves.

    References:
        Vehtari, Gelman, Simpson, Carpenter, Bürkner 2021, *Rank-normalization, folding, and localization: an improved
        R-hat for assessing convergence of MCMC*, arXiv:1903.08008.

    Example:
        >>> bool((rhat(torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(0))) < 1.02).all())
        True
    """
    halves = _split(draws)
    pooled = halves.flatten(0, 1).sort(0).values
    median = (pooled[(len(pooled) - 1) // 2] + pooled[len(pooled) // 2]) / 2
    return torch.maximum(
        _potential(_normal_scores(halves)), _potential(_normal_scores((halves - median).abs()))
    )


def ess(draws: Tensor) -> Tensor:
    r"""Bulk effective sample size $S / (1 + 2 \sum_t \rho_t)$ of rank-normalized draws; the number of `arviz.ess`.

    Args:
        draws: `(chains, draws, *rest)`, at least 4 draws.

    Shape:
        `(chains, draws, *rest)`  ->  `(*rest)`, float64.

    References:
        Vehtari et al. 2021, arXiv:1903.08008; Geyer 1992, *Practical Markov chain Monte Carlo*, for where the sum ends.

    Example:
        >>> ess(torch.arange(8.0).repeat(4, 1)).shape
        torch.Size([])
    """
    return _effective(_normal_scores(_split(draws)))


def mean_ess(draws: Tensor) -> Tensor:
    r"""Effective sample size of the mean: its standard error is $\mathrm{sd} / \sqrt{\mathrm{ESS}}$.

    Args:
        draws: `(chains, draws, *rest)`, at least 4 draws.

    Shape:
        `(chains, draws, *rest)`  ->  `(*rest)`, float64.
    """
    return _effective(_split(draws))


def _split(draws: Tensor) -> Tensor:
    """Every chain as two, `(2 chains, draws / 2, *rest)`; an odd draw in the middle is left out."""
    num = draws.shape[1]
    if draws.dim() < 2 or num < 4:
        raise ValueError(
            f"draws: expected (chains, draws, …) with at least 4 draws, got shape {tuple(draws.shape)}."
        )
    return torch.cat([draws[:, : num // 2], draws[:, -(num // 2) :]]).double()


def _normal_scores(halves: Tensor) -> Tensor:
    """Normal quantiles of the ranks over all chains; ties, which rejected proposals leave, share their mean rank."""
    x = (
        halves.flatten(0, 1).flatten(1).T.contiguous()
        if halves.dim() > 2
        else halves.flatten()[None]
    )
    ordered = x.sort(-1).values
    rank = (
        torch.searchsorted(ordered, x) + torch.searchsorted(ordered, x, right=True) + 1
    ).double() / 2
    quantile = (rank - 3 / 8) / (x.shape[-1] + 1 / 4)
    return torch.special.ndtri(quantile).T.reshape(halves.shape)


def _potential(chains: Tensor) -> Tensor:
    num = chains.shape[1]
    between, within = chains.mean(1).var(0), chains.var(1).mean(0)
    return ((between / within) + (num - 1) / num).sqrt()


def _effective(chains: Tensor) -> Tensor:
    num_chains, num = chains.shape[:2]
    rho = _autocorrelation(chains)
    # Sums of neighbours are positive and fall for a reversible chain; the first that is not is noise, and ends the sum.
    pairs = rho[: 2 * max(1, (num - 1) // 2)].unflatten(0, (-1, 2))
    sums = pairs.sum(1)
    last = (sums > 0).long().cumprod(0).sum(0).clamp(max=len(sums) - 1)
    before = torch.arange(len(sums), device=sums.device).reshape(-1, *[1] * (sums.dim() - 1)) < last
    kept = torch.where(before, sums.cummin(0).values, 0.0).sum(0)
    edge, edge_sum = (v.gather(0, last[None])[0] for v in (pairs[:, 0], sums))
    tau = -1 + 2 * kept + torch.where((edge > 0) | (edge_sum >= 0), edge, 0.0)
    found = num_chains * num / tau.clamp(min=1 / log10(num_chains * num))
    span = chains.amax((0, 1)) - chains.amin((0, 1))
    return torch.where(span < 1e-15, float(num_chains * num), found)


def _autocorrelation(chains: Tensor) -> Tensor:
    r"""$\rho_t = 1 - (W - \bar\gamma_t) / \hat V$ of all lags `(draws, *rest)`, over all chains."""
    num = chains.shape[1]
    centred = chains - chains.mean(1, keepdim=True)
    power = torch.fft.rfft(centred, n=2 * num, dim=1).abs().square()
    covariance = torch.fft.irfft(power, n=2 * num, dim=1)[:, :num].mean(0) / num
    within = covariance[0] * num / (num - 1)
    rho = 1 - (within - covariance) / (covariance[0] + chains.mean(1).var(0))
    return torch.cat([torch.ones_like(rho[:1]), rho[1:]])
