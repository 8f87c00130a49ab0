"""The checks of a report: functions from findings to an item. A check of your own is one more such function."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...inference.run.traces import latent_sites, observed_sites
from ..estimate import estimated
from ..latents.units import Collapse
from ..likelihood.pareto import LEAST_DRAWS
from ..likelihood.psis import khat_threshold
from ..likelihood.results import NLL
from .findings import NO_LATENTS, Check, Findings, Skipped
from .items import Item, Picture, Status, Threshold, judge
from .pictures import (
    aggregate_figure,
    bound_figure,
    image_figure,
    khat_figure,
    rank_figure,
    unit_figure,
)

NUM_WORST = 12  # data that are listed and shown
MAX_MONTE_CARLO = 0.1  # nats: the standard error of one datum's log p(x); an ESS of 100
ROUNDING = 1e-3  # weights of an exact guide vary by less, and k-hat would be that of the rounding

NO_BAD_NUMBER = Threshold(0, "one NaN or infinite number spoils every mean")
MAX_BIAS = Threshold(0.05, "half of 0.1 nats, the smallest difference that papers report")
MAX_GAP = Threshold(
    1.0, "KL(q(z|x) || p(z|x)) of 1 nat: a posterior mean that is off by 1.4 standard deviations"
)
MAX_SHARE = Threshold(
    0.1, "a mean over the data survives one unreliable datum in ten, not many more"
)
LEVEL = Threshold(0.01, "an exact one is refused once in a hundred reports", at_least=True)
MAX_IDLE = Threshold(
    0.5, "some idle units are the price of a latent space that is large enough, most are a collapse"
)
MIN_INFORMATION = Threshold(
    0.1, "below it z says next to nothing of x: the decoder works alone", at_least=True
)
MAX_MARGINAL_KL = Threshold(1.0, "a better prior alone could win so many nats of ELBO")


def support(findings: Findings) -> Item:
    """Do model and guide draw the same sites, and can every datum be scored?"""
    try:
        _, model_trace = findings.traces
    except Skipped as error:
        finding, _, fix = str(error).partition("Fix: ")
        return Item(
            Status.WARN,
            finding.strip(),
            advice=fix or "mend this first: nothing else can be checked",
        )
    sites = f"Latent {[*latent_sites(model_trace)]}, observed {[*observed_sites(model_trace)]}"
    return Item(Status.PASS, f"{sites}; all {findings.num_data:,} data lie in the support")


def finite(findings: Findings) -> Item:
    """Are all weights and all log densities finite?"""
    weights = findings.num_bad_weights
    scores = (
        [] if weights else [findings.nll.per_datum, findings.nll.nelbo]
    )  # bad weights need no data to be told
    bad = sum(int((~score.isfinite()).sum()) for score in scores)
    return judge(
        weights + bad,
        "NaN or infinite",
        NO_BAD_NUMBER,
        f"{weights:,} weights of the programs and {bad:,} bounds on log p(x) are NaN or infinite",
        "look at the learning curve; a smaller step, gradients clipped, scales with a floor",
    )


def normalized(findings: Findings) -> Item:
    """Does the law of every observation sum or integrate to one?"""
    found = findings.normalization
    if not found.log_total:
        raise Skipped("; ".join(found.unchecked.values()))
    rest = "; not checked: " + "; ".join(found.unchecked.values()) if found.unchecked else ""
    return judge(
        found.bias,
        "nats per datum",
        MAX_BIAS,
        f"Masses or densities of {', '.join(found.log_total)} add up to one within {found.bias:.2g} nats per datum at "
        f"{len(next(iter(found.log_total.values())))} draws of z{rest}",
        "divide by the sum over the support, for no log p(x) of this model means anything; unnormalized losses, such "
        "as a weighted or a squared error, are no likelihoods",
        source="sum or integral of p(x|z) over x",
    )


def gap(findings: Findings) -> Item:
    """How much of log p(x) does the ELBO miss?"""
    found = _weights(findings)
    missing = found.nelbo - found.per_datum
    return judge(
        missing.mean().item(),
        "nats per datum",
        MAX_GAP,
        f"NLL {found.mean:.2f} ± {found.stderr:.2f}, -ELBO {found.nelbo.mean():.2f}: the guide loses "
        f"{estimated(missing[None])} nats per datum, or more where k-hat is large",
        "see gaps(model, guide, x), which tells a guide too simple (then a flow posterior, or IWELBO) from one encoder "
        "that serves all data badly (then a larger encoder, or SemiAmortizedGuide)",
        source="log p(x) - ELBO = KL(q(z|x) || p(z|x)); Cremer et al. 2018, arXiv:1801.03558",
        pictures=(
            Picture(
                "−ELBO against the importance estimate of −log p(x), one point per datum: the distance "
                "above the diagonal is what the guide loses.",
                partial(bound_figure, found.per_datum, found.nelbo),
            ),
        ),
    )


def reliability(findings: Findings) -> Item:
    """For how many data are the importance weights too heavy-tailed to trust?"""
    found = _weights(findings)
    if found.num < LEAST_DRAWS:
        raise Skipped(
            f"a k-hat takes {LEAST_DRAWS} draws for each datum, got num={found.num}. Fix: num=1000"
        )
    khat = torch.where(found.monte_carlo * found.num**0.5 < ROUNDING, -torch.inf, found.khat)
    limit, worst = khat_threshold(found.num), _worst(khat)
    share = (khat > limit).double().mean().item()
    rows = findings.rows[worst]
    shown = [
        Picture(
            f"Share of the data at every k̂; right of the line ({limit:.2f}) {found.num:,} draws are too "
            "few, and error bars of NLL are too small. The outer bars hold what lies beyond.",
            partial(khat_figure, khat, limit),
        )
    ]
    if findings.settings.image_shape:
        titles = [
            f"{row}\n{k:.2f}" for row, k in zip(rows.tolist(), khat[worst].tolist(), strict=True)
        ]
        images = findings.batch[0][rows.to(findings.batch[0].device)].cpu()
        shown.append(
            Picture(
                "The data with the largest k̂, worst first: index in the data set, k̂.",
                partial(image_figure, images, findings.settings.image_shape, titles),
            )
        )
    return judge(
        share,
        f"of data with k-hat > {limit:.2f}",
        MAX_SHARE,
        f"{share:.0%} of the data have k-hat > {limit:.2f}, where NLL is an upper bound that more draws lower only "
        f"slowly; worst first, by index: {', '.join(map(str, rows.tolist()))}",
        "take a guide with wider tails, or score these data by ais(model, x)",
        source="Vehtari et al. 2024, arXiv:1507.02646",
        rows=tuple(rows.tolist()),
        pictures=tuple(shown),
    )


def precision(findings: Findings) -> Item:
    """For how many data do the draws leave log p(x) uncertain?"""
    found = _weights(findings)
    share = (found.monte_carlo > MAX_MONTE_CARLO).double().mean().item()
    return judge(
        share,
        f"of data with a s.e. > {MAX_MONTE_CARLO} nats",
        MAX_SHARE,
        f"Median ESS {found.ess.median():.0f} of {found.num:,} draws; {share:.0%} of the data have a log p(x) with a "
        f"standard error above {MAX_MONTE_CARLO} nats, an ESS below about 100",
        "take more draws (num=), or a guide nearer to the posterior",
        source="ESS = (sum w)^2 / sum w^2; Var log p(x) ~ 1/ESS - 1/K",
    )


def calibrated(findings: Findings) -> Item:
    """Is the guide the posterior of the model's own data?"""
    found = findings.sbc
    adjusted = found.adjusted
    order = adjusted.argsort()[:3].tolist()
    worst = ", ".join(f"{found.names[i]} {_p(adjusted[i].item())}" for i in order)
    return judge(
        adjusted.min().item(),
        "p-value (Holm)",
        LEVEL,
        f"Ranks of {len(found.names)} statistics over {len(found.ranks):,} simulated data; smallest p after Holm's "
        f"correction: {worst}; central 80 % intervals of {found.names[order[0]]} hold the truth for "
        f"{found.coverage(0.8)[order[0]]:.0%}",
        "look at the ranks: a U shape is a guide too narrow, a hump one too wide, a slope a mean that is off; with "
        "thousands of data small errors show, so weigh it by the NLL-ELBO gap",
        source="Talts et al. 2018, arXiv:1804.06788; Holm 1979",
        pictures=(
            Picture(
                "Ranks of the truth among draws of the guide, on data that the model simulated; uniform for "
                "an exact guide, with 99 % of the bars of each panel in the band.",
                partial(rank_figure, found, _worst(-adjusted).tolist()),
            ),
        ),
    )


def active(findings: Findings) -> Item:
    """How many units say nothing of the data?"""
    found = findings.collapse
    idle, total = (
        sum(f(units) for units in found.idle.values())
        for f in (lambda u: int(u.sum()), Tensor.numel)
    )
    return judge(
        idle / total,
        "of the units idle",
        MAX_IDLE,
        f"{total - idle} of {total} units are active: Var of their posterior means ≥ {found.min_variance:g}, and a "
        f"share in the KL ≥ {found.min_kl:g} nats where it is known",
        "where the decoder works alone, or β is too large too early, try LinearWarmup, FreeBits, a weaker decoder or "
        "fewer units",
        source="Burda et al. 2016, arXiv:1509.00519; Lucas et al. 2019, arXiv:1911.02469",
        pictures=(_picture_of_units(found),),
    )


def informative(findings: Findings) -> Item:
    """How much does z say of x?"""
    found = findings.surgery
    information = found.mutual_information
    full = "; it is at its ceiling, and more data would show more" if _at_ceiling(findings) else ""
    return judge(
        information.value,
        "nats",
        MIN_INFORMATION,
        f"I(x, z) = {information} nats, of at most log N = {found.ceiling:.2f}; KL {found.kl}{full}",
        "the latents are ignored; see the active units for what to do",
        source="Hoffman, Johnson 2016, ELBO surgery",
    )


def matched(findings: Findings) -> Item:
    """What could a perfect prior still win?"""
    found = findings.surgery
    kl = found.marginal_kl
    text = f"KL(q_agg || p) = {kl} nats per datum, what a perfect prior could still win on these {found.num_data:,} data"
    if _at_ceiling(findings) and not MAX_MARGINAL_KL.holds(kl.value):
        reason = f"{text}: an upper bound alone, for the mutual information is at its ceiling log N = {found.ceiling:.2f}"
        return Item(
            Status.SKIP, reason, value=kl.value, unit="nats per datum", threshold=MAX_MARGINAL_KL
        )
    return judge(
        kl.value,
        "nats per datum",
        MAX_MARGINAL_KL,
        text,
        "take another prior, as MixturePrior(D, 50), a Flow or a VampPrior, or refit_prior(vae, x, prior) for a VAE",
        source="E KL(q(z|x) || p) = I(x, z) + KL(q_agg || p)",
    )


def indistinguishable(findings: Findings) -> Item:
    """Can draws of the aggregate be told from draws of the prior?"""
    found, (aggregate, prior) = findings.aggregate_test, (z.cpu() for z in findings.aggregate)
    return judge(
        found.p_value,
        "p-value",
        LEVEL,
        f"MMD² {found.value:.2e} ± {found.stderr:.2e} between {len(aggregate):,} draws of q(z|x), one per datum, and "
        f"{len(prior):,} of the prior, p = {found.p_value:.4f} by {found.num_permutations} permutations: it says "
        "whether they differ, and the gap how much",
        "take another prior, or refit_prior(vae, x, prior) for a VAE, before sampling: its draws are decoded where no "
        "datum was encoded",
        source="Gretton et al. 2012, JMLR 13",
        pictures=(
            Picture(
                "Draws of q(z|x), one per datum, over draws of the prior, in the two dims whose aggregate "
                "differs most from it in mean or scale.",
                partial(aggregate_figure, aggregate, prior),
            ),
        ),
    )


CHECKS = (
    Check("data and sites", support),
    Check("finite numbers", finite),
    Check("normalization", normalized),
    Check("active units", active),
    Check("mutual information", informative),
    Check("NLL-ELBO gap", gap),
    Check("k-hat", reliability),
    Check("importance ESS", precision),
    Check("SBC", calibrated),
    Check("aggregate-prior gap", matched),
    Check("aggregate-prior test", indistinguishable),
)


def _p(value: float) -> str:
    return f"{value:.2g}" if value > 0 else "< 1e-300"


def _weights(findings: Findings) -> NLL:
    """Importance estimates, of a pair that has weights."""
    if findings.nll.kind == "exact":
        raise Skipped(NO_LATENTS)
    return findings.nll


def _worst(score: Tensor) -> Tensor:
    """Where the largest scores are, largest first; NaN is the worst."""
    return score.nan_to_num(nan=float("inf"), posinf=float("inf")).argsort(
        descending=True, stable=True
    )[:NUM_WORST]


def _at_ceiling(findings: Findings) -> bool:
    """Whether N data are too few to see all that z says of x: within a nat of log N."""
    found = findings.surgery
    return found.mutual_information.value > found.ceiling - 1


def _picture_of_units(found: Collapse) -> Picture:
    """The KL of every unit; the variance of its means where the KL is not known of all sites."""
    known = set(found.kl) == set(found.idle)
    heights, label = (
        (found.kl, "KL, nats") if known else (found.variance, "variance of posterior means")
    )
    names = [f"{site}[{i}]" for site, idle in found.idle.items() for i in range(idle.numel())]
    values, idle = (
        torch.cat([of[site].flatten() for site in found.idle]).cpu() for of in (heights, found.idle)
    )
    what = "share in the KL" if known else "variance over the data of its posterior mean"
    caption = f"Every unit's {what}, largest first; idle units in light grey."
    return Picture(caption, partial(unit_figure, names, values, idle, label))
