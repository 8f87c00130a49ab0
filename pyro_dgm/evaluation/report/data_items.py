"""Can the data be scored at all? Sites, finite numbers, and distributions of observations that sum to one."""

from __future__ import annotations

from torch import Tensor

from ...inference.run.levels import measure_of_data
from ...inference.sites.measures import Measure
from .findings import Findings, Skipped
from .items import Item, Status, Threshold, judge

NO_BAD_NUMBER = Threshold(0, "one NaN or infinite number spoils every mean")
MAX_BIAS = Threshold(0.05, "half of 0.1 nats, the smallest difference that papers report")


def support_item(findings: Findings) -> Item:
    """Do model and guide draw the same sites, and can every datum be scored?"""
    try:
        structure = findings.structure
    except Skipped as error:
        finding, _, fix = str(error).partition("Fix: ")
        advice = fix or "mend this first: nothing else can be checked"
        return Item(Status.WARN, finding.strip(), advice=advice)
    sites = f"Latent {list(structure.latent)}, observed {list(structure.observed)}"
    measure = structure.measure
    if measure is Measure.DENSITY:  # of data that may lie on levels
        data = findings.batch if structure.fixed_size else findings.scored
        measure = measure_of_data(findings.model, data)
    finding = f"{sites}; all {findings.num_data:,} data lie in the support; p(x) is a {measure}"
    advice = _advice_on_measure(measure, structure.points)
    return Item(Status.WARN if advice else Status.PASS, finding, advice=advice)


def _advice_on_measure(measure: Measure, points: tuple[str, ...]) -> str:
    """What to do where figures are no bound on log p(x), or no probability of the data; else empty."""
    if measure is Measure.JOINT:
        return (
            f"the guide is a point mass at {list(points)}: log p(x, z*) bounds nothing. Take a "
            "guide with a density, such as Conditional(dist.Normal, net)"
        )
    if measure is Measure.IMPROPER:
        return (
            "the prior is improper: figures are known up to a constant alone, and bound no log p(x). Take a "
            "prior that integrates to one, such as a wide Normal"
        )
    if measure is Measure.ON_LEVELS:
        return (
            "the data lie on levels, where a density has no bound and is no probability of them: "
            "dequantized(model), or a likelihood over levels such as DiscretizedLogistic"
        )
    return ""


def finiteness_item(findings: Findings) -> Item:
    """Are all weights and all log densities finite?"""
    num_weights = findings.num_bad_weights
    num_bounds = 0
    if num_weights == 0:  # bad weights need no data to be told
        nll = findings.nll
        num_bounds = _num_bad(nll.per_datum) + _num_bad(nll.nelbo)
    return judge(
        num_weights + num_bounds,
        "NaN or infinite",
        NO_BAD_NUMBER,
        f"{num_weights:,} weights of the programs and {num_bounds:,} bounds on log p(x) are NaN or "
        "infinite",
        "look at the learning curve; a smaller step, gradients clipped, scales with a floor",
    )


def _num_bad(values: Tensor) -> int:
    return int((~values.isfinite()).sum())


def normalization_item(findings: Findings) -> Item:
    """Does the distribution of every observation sum or integrate to one?"""
    normalization = findings.normalization
    totals = normalization.log_total
    reasons = "; ".join(normalization.unchecked.values())
    if not totals:
        raise Skipped(reasons)
    num_draws = len(next(iter(totals.values())))
    finding = (
        f"Masses or densities of {', '.join(totals)} add up to one within "
        f"{normalization.bias:.2g} nats per datum at {num_draws} draws of z"
    )
    if reasons:
        finding = f"{finding}; not checked: {reasons}"
    return judge(
        normalization.bias,
        "nats per datum",
        MAX_BIAS,
        finding,
        "divide by the sum over the support, for no log p(x) of this model means anything; "
        "unnormalized losses, such as a weighted or a squared error, are no likelihoods",
        source="sum or integral of p(x|z) over x",
    )
