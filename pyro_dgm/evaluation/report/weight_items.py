"""What the importance weights of the guide say: how much the ELBO misses, and which data they score badly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...inference.sites.measures import Bound, Measure
from ..estimate import estimated
from ..likelihood.importance import NLL
from ..likelihood.pareto import LEAST_DRAWS
from ..likelihood.psis import khat_threshold
from .findings import NO_LATENTS, Findings, Skipped
from .items import Item, Picture, Threshold, judge
from .pictures import bound_figure, image_figure, khat_figure

NUM_WORST = 12  # data that are listed and shown
MAX_MONTE_CARLO = 0.1  # nats: the standard error of one datum's log p(x); an ESS of 100
POINT_MASS = "the guide is a point mass: log p(x, z*) is a joint density, and bounds nothing"

MAX_GAP = Threshold(
    1.0, "KL(q(z|x) || p(z|x)) of 1 nat: a posterior mean that is off by 1.4 standard deviations"
)
MAX_SHARE = Threshold(
    0.1, "a mean over the data survives one unreliable datum in ten, not many more"
)


def gap_item(findings: Findings) -> Item:
    """How much of log p(x) does the ELBO miss?"""
    nll = _nll_with_weights(findings)
    gap = nll.nelbo - nll.per_datum
    picture = Picture(
        "−ELBO against the importance estimate of −log p(x), one point per datum: the distance "
        "above the diagonal is what the guide loses.",
        partial(bound_figure, nll.per_datum, nll.nelbo),
    )
    return judge(
        gap.mean().item(),
        "nats per datum",
        MAX_GAP,
        f"NLL ({nll.measure}) {nll.mean:.2f} ± {nll.stderr:.2f}, -ELBO {nll.nelbo.mean():.2f}: the guide loses "
        f"{estimated(gap[None])} nats per datum, or more where k-hat is large",
        "see gaps(model, guide, x), which tells a guide too simple (then a flow posterior, or "
        "IWELBO) from one encoder that serves all data badly (then a larger encoder, or "
        "SemiAmortizedGuide)",
        source="log p(x) - ELBO = KL(q(z|x) || p(z|x)); Cremer et al. 2018, arXiv:1801.03558",
        pictures=(picture,),
    )


def khat_item(findings: Findings) -> Item:
    """For how many data are the importance weights too heavy-tailed to trust?"""
    nll = _nll_with_weights(findings)
    if nll.num < LEAST_DRAWS:
        raise Skipped(
            f"a k-hat takes {LEAST_DRAWS} draws for each datum, got num={nll.num}. Fix: num=1000"
        )
    khat = nll.khat
    limit = khat_threshold(nll.num)
    is_unreliable = ~(khat <= limit)  # NaN is
    share = is_unreliable.double().mean().item()
    rows = findings.rows[worst_first(khat)].tolist()
    return judge(
        share,
        f"of data with k-hat > {limit:.2f}",
        MAX_SHARE,
        f"{share:.0%} of the data have k-hat > {limit:.2f}, where NLL is an upper bound that more "
        f"draws lower only slowly; worst first, by index: {', '.join(map(str, rows))}",
        "take a guide with wider tails, or score these data by ais(model, x)",
        source="Vehtari et al. 2024, arXiv:1507.02646",
        rows=tuple(rows),
        pictures=_khat_pictures(findings, khat, limit),
    )


def _khat_pictures(findings: Findings, khat: Tensor, limit: float) -> tuple[Picture, ...]:
    """The histogram of k-hat and, if the data are images, those with the largest."""
    histogram = Picture(
        f"Share of the data at every k̂; right of the line ({limit:.2f}) {findings.settings.num:,} "
        "draws are too few, and error bars of NLL are too small. The outer bars hold what lies "
        "beyond.",
        partial(khat_figure, khat, limit),
    )
    image_shape = findings.settings.image_shape
    if image_shape is None:
        return (histogram,)
    return histogram, _picture_of_worst(findings, khat, image_shape)


def _picture_of_worst(findings: Findings, khat: Tensor, shape: tuple[int, ...]) -> Picture:
    """The data with the largest k-hat as images."""
    worst = worst_first(khat)
    index = findings.rows[worst]
    titles = []
    for row, value in zip(index.tolist(), khat[worst].tolist(), strict=True):
        titles.append(f"{row}\n{value:.2f}")
    x = findings.batch[0]
    images = x[index.to(x.device)].cpu()
    return Picture(
        "The data with the largest k̂, worst first: index in the data set, k̂.",
        partial(image_figure, images, shape, titles),
    )


def ess_item(findings: Findings) -> Item:
    """For how many data do the draws leave log p(x) uncertain?"""
    nll = _nll_with_weights(findings)
    is_certain = nll.monte_carlo <= MAX_MONTE_CARLO  # NaN where k-hat says that there is no error
    share = (~is_certain).double().mean().item()
    return judge(
        share,
        f"of data with a s.e. > {MAX_MONTE_CARLO} nats",
        MAX_SHARE,
        f"Median ESS {nll.ess.median():.0f} of {nll.num:,} draws; {share:.0%} of the data have a "
        f"log p(x) with a standard error above {MAX_MONTE_CARLO} nats, an ESS below about 100, or with none, "
        "as k-hat is too large",
        "take more draws (num=), or a guide nearer to the posterior",
        source="ESS = (sum w)^2 / sum w^2; Var log p(x) ~ 1/ESS - 1/K",
    )


def _nll_with_weights(findings: Findings) -> NLL:
    """Importance estimates, of a pair that has weights."""
    nll = findings.nll
    if nll.measure is Measure.JOINT:
        raise Skipped(POINT_MASS)
    if nll.kind == Bound.EXACT:
        raise Skipped(NO_LATENTS)
    if nll.kind == Bound.PREDICTIVE:
        raise Skipped(
            f"all data share {list(findings.structure.globals)}. Fix: checks=JOINT_CHECKS"
        )
    return nll


def worst_first(scores: Tensor) -> Tensor:
    """Where the largest of the scores `(N,)` are, largest first, `NUM_WORST` at most; NaN is the worst.

    Example:
        >>> worst_first(torch.tensor([0.1, torch.nan, 0.3]))
        tensor([1, 2, 0])
    """
    finite = scores.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return finite.argsort(descending=True, stable=True)[:NUM_WORST]
