"""What the latents do: units in use, calibration, and the aggregate of the guide against the prior."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from ..latents.units import Collapse
from ..posterior.calibration import SBC
from .findings import Findings
from .items import Item, Picture, Status, Threshold, judge
from .pictures import aggregate_figure, rank_figure, unit_figure
from .weight_items import worst_first

LEVEL = Threshold(0.01, "an exact one is refused once in a hundred reports", at_least=True)
MAX_IDLE = Threshold(
    0.5, "some idle units are the price of a latent space that is large enough, most are a collapse"
)
MIN_INFORMATION = Threshold(
    0.1, "below it z says next to nothing of x: the decoder works alone", at_least=True
)
MAX_MARGINAL_KL = Threshold(1.0, "a better prior alone could win so many nats of ELBO")
NUM_TOLD = 3  # statistics of the calibration whose p-values are told
SMALLEST_P = 1e-300  # p-values that underflow are below it


def calibration_item(findings: Findings) -> Item:
    """Is the guide the posterior of the model's own data?"""
    sbc = findings.sbc
    adjusted = sbc.adjusted
    worst = adjusted.argsort()[0]
    coverage = sbc.coverage(0.8)[worst]
    rank_picture = Picture(
        "Ranks of the truth among draws of the guide, on data that the model simulated; uniform "
        "for an exact guide, with 99 % of the bars of each panel in the band.",
        partial(rank_figure, sbc, worst_first(-adjusted).tolist()),
    )
    return judge(
        adjusted.min().item(),
        "p-value (Holm)",
        LEVEL,
        f"Ranks of {len(sbc.names)} statistics over {len(sbc.ranks):,} simulated data; smallest p "
        f"after Holm's correction: {_smallest_p_values(sbc)}; central 80 % intervals of "
        f"{sbc.names[worst]} hold the truth for {coverage:.0%}",
        "look at the ranks: a U shape is a guide too narrow, a hump one too wide, a slope a mean "
        "that is off; with thousands of data small errors show, so weigh it by how often the intervals hold "
        "the truth",
        source="Talts et al. 2018, arXiv:1804.06788; Holm 1979",
        pictures=(rank_picture,),
    )


def _smallest_p_values(sbc: SBC) -> str:
    """The statistics with the smallest p-values after Holm's correction."""
    texts = []
    for statistic in sbc.adjusted.argsort()[:NUM_TOLD].tolist():
        p_value = sbc.adjusted[statistic].item()
        text = f"{p_value:.2g}" if p_value > 0 else f"< {SMALLEST_P:g}"
        texts.append(f"{sbc.names[statistic]} {text}")
    return ", ".join(texts)


def unit_item(findings: Findings) -> Item:
    """How many units say nothing of the data?"""
    collapse = findings.collapse
    num_idle = num_units = 0
    for is_idle in collapse.idle.values():
        num_idle += int(is_idle.sum())
        num_units += is_idle.numel()
    return judge(
        num_idle / num_units,
        "of the units idle",
        MAX_IDLE,
        f"{num_units - num_idle} of {num_units} units are active: their draws tell at least "
        f"{collapse.min_information:g} nats of x; {collapse.num_active} have posterior means of a "
        "variance above 0.01, which is the number of active units that papers report",
        "where the decoder works alone, or β is too large too early, try LinearWarmup, FreeBits, "
        "a weaker decoder or fewer units",
        source="Burda et al. 2016, arXiv:1509.00519; Lucas et al. 2019, arXiv:1911.02469",
        pictures=(_unit_picture(collapse),),
    )


def _unit_picture(collapse: Collapse) -> Picture:
    """What every unit tells of the data."""
    names = []
    for site, idle in collapse.idle.items():
        names += [f"{site}[{unit}]" for unit in range(idle.numel())]
    heights = _flat(collapse.information, of=collapse.idle)
    is_idle = _flat(collapse.idle, of=collapse.idle)
    return Picture(
        "Information on x in the draws of every unit, largest first; idle units in light grey.",
        partial(unit_figure, names, heights, is_idle, "information on x, nats"),
    )


def _flat(values: dict[str, Tensor], of: Iterable[str]) -> Tensor:
    """The values of all units `(num_units,)`, site by site."""
    return torch.cat([values[site].flatten().cpu() for site in of])


def information_item(findings: Findings) -> Item:
    """How much does z say of x?"""
    surgery = findings.surgery
    information = surgery.mutual_information
    finding = (
        f"I(x, z) = {information} nats, of at most log N = {surgery.ceiling:.2f}; KL {surgery.kl}"
    )
    if _is_at_ceiling(findings):
        finding = f"{finding}; it is at its ceiling, and more data would show more"
    return judge(
        information.value,
        "nats",
        MIN_INFORMATION,
        finding,
        "the latents are ignored; see the active units for what to do",
        source="Hoffman, Johnson 2016, ELBO surgery",
    )


def prior_gap_item(findings: Findings) -> Item:
    """What could a perfect prior still win?"""
    surgery = findings.surgery
    kl = surgery.marginal_kl
    finding = (
        f"KL(q_agg || p) = {kl} nats per datum, what a perfect prior could still win on these "
        f"{findings.num_data:,} data"
    )
    if _is_at_ceiling(findings) and not MAX_MARGINAL_KL.holds(kl.value):
        return Item(
            Status.SKIP,
            f"{finding}: an upper bound alone, for the mutual information is at its ceiling "
            f"log N = {surgery.ceiling:.2f}",
            value=kl.value,
            unit="nats per datum",
            threshold=MAX_MARGINAL_KL,
        )
    return judge(
        kl.value,
        "nats per datum",
        MAX_MARGINAL_KL,
        finding,
        "take another prior, as MixturePrior(D, 50), a Flow or a VampPrior, or "
        "refit_prior(vae, x, prior) for a VAE",
        source="E KL(q(z|x) || p) = I(x, z) + KL(q_agg || p)",
    )


def _is_at_ceiling(findings: Findings) -> bool:
    """Whether N data are too few to see all that z says of x: within a nat of log N."""
    surgery = findings.surgery
    return surgery.mutual_information.value > surgery.ceiling - 1


def prior_test_item(findings: Findings) -> Item:
    """Can draws of the aggregate be told from draws of the prior?"""
    test = findings.aggregate_test
    aggregate, prior = findings.aggregate
    picture = Picture(
        "Draws of q(z|x), one per datum, over draws of the prior, in the two dims whose aggregate "
        "differs most from it in mean or scale.",
        partial(aggregate_figure, aggregate.cpu(), prior.cpu()),
    )
    return judge(
        test.p_value,
        "p-value",
        LEVEL,
        f"MMD² {test.value:.2e} ± {test.stderr:.2e} between {len(aggregate):,} draws of q(z|x), "
        f"one per datum, and {len(prior):,} of the prior, p = {test.p_value:.4f} by "
        f"{test.num_permutations} permutations: it says whether they differ, and the gap how much",
        "take another prior, or refit_prior(vae, x, prior) for a VAE, before sampling: its draws "
        "are decoded where no datum was encoded",
        source="Gretton et al. 2012, JMLR 13",
        pictures=(picture,),
    )
