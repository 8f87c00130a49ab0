"""What is asked of the measure of a figure before it is compared, put in bits, or taken for a density."""

from __future__ import annotations

from collections.abc import Mapping

from .measures import UNDER_A_MASK, Bound, Measure


def require_one_measure(owner: str, measures: Mapping[str, Measure]) -> None:
    """Refuse figures that are logarithms of different things, and joint densities at a point altogether.

    Args:
        owner: who compares, for the message.
        measures: name of a figure → what it measures.

    Raises:
        ValueError: with every figure's measure and the fix.
    """
    told = ", ".join([f"'{name}': {measure}" for name, measure in measures.items()])
    references = {measure.reference for measure in measures.values()}
    if Measure.JOINT in references:
        raise ValueError(
            f"{owner}: expected figures of log p(x), got {told}: log p(x, z*) is no likelihood of x, and bounds "
            "none. Fix: a guide with a density at its latent sites, such as "
            "AmortizedGuide(Conditional(dist.Normal, net)) in place of a Delta or AutoDelta."
        )
    for measure in (Measure.FACTOR, Measure.IMPROPER):
        if measure in references and len(measures) > 1:
            raise ValueError(
                f"{owner}: expected normalized figures, got {told}: each factor, and each improper prior, has "
                f"a constant of its own. Fix: {_FIXES[measure]}."
            )
    if len(references) > 1:
        raise ValueError(
            f"{owner}: expected figures of one measure, got {told}, which are not to be compared. Fix: "
            f"{_fix_of_measures(references)}."
        )


def require_one_kind(owner: str, kinds: Mapping[str, str]) -> None:
    """Refuse posterior predictive densities beside likelihoods of the data.

    Raises:
        ValueError: with every figure's kind, see `Bound`, and the fix.
    """
    is_predictive = {kind == Bound.PREDICTIVE for kind in kinds.values()}
    if len(is_predictive) > 1:
        told = ", ".join([f"'{name}': {kind}" for name, kind in kinds.items()])
        raise ValueError(
            f"{owner}: expected figures of one kind, got {told}: one is averaged over the globals of its guide, which "
            "data have told it, the other is not. Fix: evidence(model, guide, x) of each, the log p(X) of all data."
        )


def _fix_of_measures(references: set[Measure]) -> str:
    if references & set(UNDER_A_MASK.values()):
        return "the same mask, or none, in all models: poutine.mask leaves out a part of the data"
    if Measure.UNSTATED in references:
        stated = sorted(references - {Measure.UNSTATED})[0]
        return f"dgm.results.GivenNLL(per_datum, measure='{stated}'), if that is what it measures"
    return (
        "dequantized(model) with NoiseGuide(UnitUniform()), the mass of integer data under a density, or a "
        "likelihood over levels such as DiscretizedLogistic"
    )


def require_probability(owner: str, measure: Measure) -> None:
    """Refuse what is no probability of data on levels: bits per dim are of one.

    Raises:
        ValueError: for a density of data on levels, a mix of both kinds, a joint density at a point, or for
            what is not normalized.
    """
    if measure in (Measure.MASS, Measure.DENSITY, Measure.UNSTATED):
        return
    fix = _FIXES[measure]
    raise ValueError(
        f"{owner}: expected a mass of discrete data, or a density of data that are really continuous, got "
        f"the figure '{measure}', which is no probability of the data. Fix: {fix}."
    )


_FIXES = {
    Measure.ON_LEVELS: (
        "dequantized(model) with NoiseGuide(UnitUniform()) (VAE(…, dequantizer=UnitUniform())), whose figure is a "
        "bound on the mass; or a likelihood over levels such as DiscretizedLogistic"
    ),
    Measure.MIXED: "the figure in nats, result.mean; or nll of a model with one of its observed sites",
    Measure.JOINT: (
        "a guide with a density at its latent sites, Conditional(dist.Normal, net) in place of a "
        "Delta or AutoDelta"
    ),
    **dict.fromkeys(
        [Measure.MASKED_MASS, Measure.MASKED_DENSITY, Measure.MASKED_MIXED],
        "the figure in nats, result.mean, or the model without poutine.mask: the mask leaves out data that the "
        "dims count",
    ),
    Measure.FACTOR: "the model without pyro.factor, whose p(x) is normalized",
    Measure.IMPROPER: "a prior that integrates to one, such as a wide Normal, in place of ImproperUniform",
}


def as_measure(value: str) -> Measure:
    """A measure by its name.

    Raises:
        ValueError: for another name.
    """
    try:
        return Measure(value)
    except ValueError as error:
        names = [measure.value for measure in Measure]
        raise ValueError(
            f"measure: expected one of {names}, got {value!r}. Fix: measure='mass' for discrete data, "
            "measure='density' for continuous ones."
        ) from error


def require_density(
    owner: str,
    points: tuple[str, ...],
    fix: str = "",
    reason: str = "log p(x, z*) is a joint density at a point, and no bound on log p(x)",
) -> None:
    """Refuse a guide that is a point mass where its density is asked for.

    Args:
        owner: who asks, for the message.
        points: the sites, see `point_sites`.
        fix: what to do; default: a guide with a density.
        reason: what a point mass makes of the number.

    Raises:
        ValueError: if there are any.
    """
    if points:
        raise ValueError(
            f"{owner}: expected a guide with a density at every latent site, got a point mass (Delta) at "
            f"{list(points)}: {reason}. Fix: "
            f"{fix or 'Conditional(dist.Normal, net) as the encoder, in place of a Delta'}."
        )
