"""What the weights of joint draws say, where all data share a draw: of the evidence, and of every number by itself."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from ...inference.sites.measures import Measure
from ..likelihood.model_evidence import Evidence
from ..likelihood.pareto import LEAST_DRAWS
from ..likelihood.psis import khat_threshold
from ..likelihood.quantities import Quantities
from .findings import Findings, Skipped
from .items import Item, Threshold, judge
from .weight_items import POINT_MASS

ERROR = 0.01  # probability that an exact guide is said to be off at some number
NUM_TOLD = 3
MAX_GAP = Threshold(1.0, "KL(q || p) of 1 nat: a mean that is off by 1.4 standard deviations")
MAX_MONTE_CARLO = Threshold(0.1, "nats of log p(X), a tenth of what tells two models apart")
MAX_SHIFT = Threshold(
    0.05, "a twentieth of a posterior standard deviation, which no interval shows"
)
MAX_SPREAD = Threshold(0.1, "intervals that are a tenth too wide, or too narrow")
SOURCE = "Vehtari et al. 2024, arXiv:1507.02646; Yao et al. 2018, arXiv:1802.02538"


def joint_finiteness_item(findings: Findings) -> Item:
    """Are all weights of the networks, and the evidence, finite?"""
    num = findings.num_bad_weights
    if num == 0:
        found = torch.tensor([findings.evidence.value, findings.evidence.elbo])
        num = int((~found.isfinite()).sum())
    return judge(
        num,
        "NaN or infinite",
        Threshold(0, "one NaN or infinite number spoils every mean"),
        f"{num:,} numbers, among the weights of the programs and the bounds on log p(X), are NaN or infinite",
        "look at the learning curve; a smaller step, gradients clipped, scales with a floor",
    )


def joint_gap_item(findings: Findings) -> Item:
    """How much of log p(X) does the ELBO miss?"""
    found = _with_weights(findings)
    return judge(
        found.value - found.elbo,
        "nats for all data",
        MAX_GAP,
        f"log p(X) ({found.measure}) {found.value:.2f} ± {found.stderr:.2f}, ELBO {found.elbo:.2f}: the guide loses "
        f"{found.value - found.elbo:.2f} nats, or more where k-hat is large",
        "take a guide with more freedom: AutoMultivariateNormal in place of AutoNormal, or a flow",
        source="log p(X) - ELBO = KL(q || p(. | X))",
    )


def joint_khat_item(findings: Findings) -> Item:
    """Do the weights carry the evidence, and the mean of every number?"""
    found = _with_weights(findings)
    if found.num < LEAST_DRAWS:
        raise Skipped(f"a k-hat takes {LEAST_DRAWS} draws, got num={found.num}. Fix: num=1000")
    limit = khat_threshold(found.num)
    heaviness = found.quantities.khat.nan_to_num(nan=torch.inf)
    return judge(
        found.worst_khat,
        "k-hat, the largest",
        Threshold(
            round(limit, 3), f"the largest at which {found.num:,} draws give a reliable mean"
        ),
        f"k-hat of the weights {found.khat:.2f}; of every number by itself, the largest: "
        f"{_worst(found.quantities, heaviness, heaviness)}",
        "take a guide with wider tails, or hmc(model, x)",
        source=SOURCE,
    )


def joint_ess_item(findings: Findings) -> Item:
    """Is log p(X) known?"""
    found = _with_weights(findings)
    return judge(
        found.stderr,
        "nats, s.e. of log p(X)",
        MAX_MONTE_CARLO,
        f"ESS {found.ess:.0f} of {found.num:,} draws; standard error of log p(X) {found.stderr:.3f} nats, and none "
        "where k-hat is too large",
        "take more draws (num=), or a guide nearer to the posterior",
        source="ESS = (sum w)^2 / sum w^2; Var log p(X) ~ 1/ESS - 1/K",
    )


def means_item(findings: Findings) -> Item:
    """Does the guide have the mean of every number where the weights say that it is?"""
    found = _quantities(findings)
    excess = _beyond_noise(found.shift, found.stderr)
    return judge(
        excess.max().item(),
        "sd off, beyond noise",
        MAX_SHIFT,
        f"Means of {len(found.names)} numbers against their weighted ones, in posterior standard deviations; worst: "
        f"{_worst(found, excess, found.shift)}",
        "weigh the draws, evidence(model, guide, x).quantities or to_arviz(…, resampled=True), or take a guide with "
        "more freedom; guide_error(guide, hmc(model, x), x) compares with chains",
        source=SOURCE,
    )


def spreads_item(findings: Findings) -> Item:
    """Does the guide have the spread of every number that the weights say it has?"""
    found = _quantities(findings)
    excess = _beyond_noise(found.ratio.log(), found.ratio_stderr)
    return judge(
        excess.max().item(),
        "|log sd ratio|, beyond noise",
        MAX_SPREAD,
        f"Standard deviations of {len(found.names)} numbers over their weighted ones; worst: "
        f"{_worst(found, excess, found.ratio)}",
        "take a guide with more freedom: one of independent numbers is too narrow where they depend on each other",
        source=SOURCE,
    )


def _beyond_noise(difference: Tensor, stderr: Tensor) -> Tensor:
    """How far differences are from 0 for sure, over all of them (Bonferroni); NaN, of no spread, counts as 0."""
    quantile = NormalDist().inv_cdf(1 - ERROR / 2 / len(difference))
    return (difference.abs() - quantile * stderr).clamp(min=0).nan_to_num(0.0)


def _worst(found: Quantities, order: Tensor, told: Tensor) -> str:
    texts = []
    for i in order.argsort(descending=True)[:NUM_TOLD].tolist():
        texts.append(f"{found.names[i]} {told[i]:.2f}")
    return ", ".join(texts)


def _with_weights(findings: Findings) -> Evidence:
    """The evidence, of a pair that has weights."""
    found = findings.evidence
    if found.measure is Measure.JOINT:
        raise Skipped(POINT_MASS)
    return found


def _quantities(findings: Findings) -> Quantities:
    """The numbers that are compared, of a pair whose draws are kept."""
    found = _with_weights(findings)
    if not found.quantities.names:
        raise Skipped(
            f"the {found.num:,} draws are too many numbers to be kept. Fix: num={found.num // 10:,}, or fewer data"
        )
    return found.quantities
