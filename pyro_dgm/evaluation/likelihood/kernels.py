"""The kernel density estimate of a likelihood from samples: the warning example, kept to show why it misleads."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi

import torch
from torch import Tensor

from ...inference.run.sessions import require_positive

BANDWIDTHS = tuple(10 ** (k / 5 - 2) for k in range(16))  # 0.01, …, 10 in the unit of the data


def parzen(samples: Tensor, x: Tensor, bandwidth: float, chunk: int = 1_000_000) -> Tensor:
    r"""$\log \frac1S \sum_s N(x_i;\ y_s,\ h^2 I)$ with $y_s \sim p$: a log density, but not that of the model.

    **Do not rank models by it.** It is exact for the mixture of kernels, and in more than a few dims that mixture is
    another distribution than the model that drew the samples: one that repeats a constant wins against the true one, as
    the example shows, and no number of samples that fits a disk brings it near $\log p(x)$. Older papers on adversarial
    networks report it; `nll`, `ais` and `bdmc` bound what it pretends to estimate. In nats per datum.

    Args:
        samples: draws of a model `(S, *event)`.
        x: data `(N, *event)`.
        bandwidth: h, in the unit of the data; `parzen_bandwidth` chooses it.
        chunk: how many pairs of sample and datum are in memory at once; each takes 8 bytes.

    Shape:
        `(N,)`, float64.

    Raises:
        ValueError: for a bandwidth that is not positive, no samples, or samples of another event shape.

    References:
        Theis, van den Oord, Bethge 2016, *A note on the evaluation of generative models*, arXiv:1511.01844 (section
        3.2); Breuleux, Bengio, Vincent 2011 (the estimate).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> true, x = torch.randn(1000, 50, generator=generator), torch.randn(100, 50, generator=generator)
        >>> bool(parzen(torch.zeros(1, 50), x, 1.0).mean() > parzen(true, x, parzen_bandwidth(true, x)).mean() + 1)
        True
    """
    require_positive(chunk=chunk)
    _check_arguments(samples, x, bandwidth)
    centres = samples.detach().flatten(1).double() / bandwidth
    data = x.detach().flatten(1).double() / bandwidth
    num, dim = centres.shape
    log_sums = []
    for block in data.split(max(1, chunk // num)):
        log_sums.append(_log_kernels(block, centres).logsumexp(1))
    log_unit = log(2 * pi) / 2 + log(bandwidth)
    return torch.cat(log_sums) - log(num) - dim * log_unit


def _check_arguments(samples: Tensor, x: Tensor, bandwidth: float) -> None:
    if not bandwidth > 0:
        raise ValueError(
            f"parzen: expected a bandwidth above 0, got {bandwidth}. "
            "Fix: parzen_bandwidth(samples, val)."
        )
    if len(samples) == 0 or samples.shape[1:] != x.shape[1:]:
        raise ValueError(
            "parzen: expected samples (S, *event) of the data's event shape "
            f"{tuple(x.shape[1:])}, got {tuple(samples.shape)}. Fix: generate(model, 10_000)."
        )


def parzen_bandwidth(
    samples: Tensor, validation: Tensor, candidates: Sequence[float] = BANDWIDTHS
) -> float:
    r"""The bandwidth with the largest mean `parzen` of validation data.

    Args:
        samples: draws of a model `(S, *event)`.
        validation: data that are not those to be scored `(N, *event)`.
        candidates: bandwidths, in the unit of the data.
    """

    def score(bandwidth: float) -> float:
        return parzen(samples, validation, bandwidth).mean().item()

    return max(candidates, key=score)


def _log_kernels(x: Tensor, y: Tensor) -> Tensor:
    r"""$-\frac12 \|x_i - y_s\|^2$ `(N, S)` by differences: the squares of a matrix product cancel for small h."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square_().mul_(-0.5)
