"""How well Markov chains mix: rank-normalized R-hat and effective sample size of all quantities in one batched pass."""

from __future__ import annotations

from math import log10

import torch
from torch import Tensor


def rhat(draws: Tensor) -> Tensor:
    r"""Rank-normalized split $\hat R$: below 1.01 for chains that explore one distribution; above 1.05 they do not mix.

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
    halves = _split_chains(draws)
    pooled = halves.flatten(0, 1).sort(0).values
    lower, upper = pooled[(len(pooled) - 1) // 2], pooled[len(pooled) // 2]
    distance = (halves - (lower + upper) / 2).abs()
    of_location = _scale_reduction(_normal_scores(halves))
    of_scale = _scale_reduction(_normal_scores(distance))
    return torch.maximum(of_location, of_scale)


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
    return _effective_size(_normal_scores(_split_chains(draws)))


def mean_ess(draws: Tensor) -> Tensor:
    r"""Effective sample size of the mean: its standard error is $\mathrm{sd} / \sqrt{\mathrm{ESS}}$.

    Args:
        draws: `(chains, draws, *rest)`, at least 4 draws.

    Shape:
        `(chains, draws, *rest)`  ->  `(*rest)`, float64.
    """
    return _effective_size(_split_chains(draws))


def _split_chains(draws: Tensor) -> Tensor:
    """Every chain as two, `(2 chains, draws / 2, *rest)`; an odd draw in the middle is left out."""
    if draws.dim() < 2 or draws.shape[1] < 4:
        raise ValueError(
            "draws: expected (chains, draws, …) with at least 4 draws, got shape "
            f"{tuple(draws.shape)}. Fix: hmc(model, x, num=4) or more, draws[None] for one chain."
        )
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).double()


def _normal_scores(halves: Tensor) -> Tensor:
    """Normal quantiles of the ranks over all chains; ties, which rejected proposals leave, share their mean rank."""
    num = halves.shape[0] * halves.shape[1]
    values = halves.reshape(num, -1).T.contiguous()  # a row per quantity
    ordered = values.sort(-1).values
    below = torch.searchsorted(ordered, values)
    up_to = torch.searchsorted(ordered, values, right=True)
    rank = (below + up_to + 1).double() / 2
    quantile = (rank - 3 / 8) / (num + 1 / 4)
    return torch.special.ndtri(quantile).T.reshape(halves.shape)


def _scale_reduction(chains: Tensor) -> Tensor:
    r"""$\hat R = \sqrt{B / W + (n - 1) / n}$ of the variances between and within chains of n draws."""
    num = chains.shape[1]
    between = chains.mean(1).var(0)
    within = chains.var(1).mean(0)
    return (between / within + (num - 1) / num).sqrt()


def _effective_size(chains: Tensor) -> Tensor:
    r"""$S / \tau$, $\tau = 1 + 2 \sum_t \rho_t$; all S draws where nothing moves."""
    num = chains.shape[0] * chains.shape[1]
    tau = _autocorrelation_time(_autocorrelation(chains)).clamp(min=1 / log10(num))
    span = chains.amax((0, 1)) - chains.amin((0, 1))
    return torch.where(span < 1e-15, float(num), num / tau)


def _autocorrelation_time(rho: Tensor) -> Tensor:
    r"""$1 + 2 \sum_t \rho_t$ of lags `(draws, *rest)`, up to where the sum is noise.

    For a reversible chain the sums of two neighbours are positive and fall. The first that is not positive is noise
    and ends the sum; before it they are made to fall. Of the pair that ends it, the even lag may still count.
    """
    num_pairs = max(1, (len(rho) - 1) // 2)
    pairs = rho[: 2 * num_pairs].unflatten(0, (num_pairs, 2))
    sums = pairs.sum(1)
    num_positive = (sums > 0).long().cumprod(0).sum(0)
    last = num_positive.clamp(max=num_pairs - 1)
    falling = sums.cummin(0).values
    even_lag = _at(pairs[:, 0], last)
    counts = (even_lag > 0) | (_at(sums, last) >= 0)
    return -1 + 2 * _sum_before(falling, last) + torch.where(counts, even_lag, 0.0)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """The entry of each column of values `(L, *rest)` at its own index `(*rest)`."""
    return values.gather(0, index[None])[0]


def _sum_before(values: Tensor, index: Tensor) -> Tensor:
    """The sum of each column of values `(L, *rest)` before its own index `(*rest)`."""
    rows = torch.arange(len(values), device=values.device)
    rows = rows.reshape(-1, *[1] * index.dim())
    return torch.where(rows < index, values, 0.0).sum(0)


def _autocorrelation(chains: Tensor) -> Tensor:
    r"""$\rho_t = 1 - (W - \bar\gamma_t) / \hat V$ of all lags `(draws, *rest)`, over all chains."""
    num = chains.shape[1]
    autocovariance = _autocovariance(chains).mean(0)
    within = autocovariance[0] * num / (num - 1)
    total = autocovariance[0] + chains.mean(1).var(0)
    rho = 1 - (within - autocovariance) / total
    rho[0] = 1
    return rho


def _autocovariance(chains: Tensor) -> Tensor:
    r"""$\gamma_t = \frac1n \sum_s (x_s - \bar x)(x_{s+t} - \bar x)$ of every chain, by its power spectrum."""
    num = chains.shape[1]
    centred = chains - chains.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * num, dim=1)  # with zeros behind: no lag wraps around
    power = spectrum.abs().square()
    products = torch.fft.irfft(power, n=2 * num, dim=1)
    return products[:, :num] / num
