"""Where a monitor warns, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from ..inference.training.history import Row


@dataclass(frozen=True)
class Limits:
    r"""Where the monitors warn; the ideal of each stands beside it.

    Attributes:
        identity: distance of $E_p\,r$ and $E_\pi\,1/r$ from 1, beyond 5 standard errors (ideal 0).
        oscillation: index of a loss (ideal 0).
        strong: share of the pairs that the critic orders right, at most (ideal ½; 0.92 for normals two sd apart).
        weak: the same share, at least, less 5 standard errors.
        spread: mean distance of two fakes over that of two real data, at least (ideal 1).
        duplicates: share of fakes that sit on another fake, beyond that of the real data (ideal 0).
        coverage: share of the real data with a fake among their neighbours, at least (ideal 0.97).
    """

    identity: float = 0.5
    oscillation: float = 0.5
    strong: float = 0.98
    weak: float = 0.5
    spread: float = 0.5
    duplicates: float = 0.2
    coverage: float = 0.5


def complaints(found: Row, limits: Limits) -> dict[str, str]:
    """What is outside its range, and what to do."""
    said, right = {}, f"the critic orders {found['balance']:.3f} of the pairs right"
    if found["balance"] > limits.strong:
        said["strong"] = (
            f"{right} (limit {limits.strong}): it is too strong to teach. Fix: a larger penalty, R1(10.0), or a lower "
            "critic lr."
        )
    if found["balance"] < limits.weak - 5 * found["balance_stderr"]:
        said["weak"] = (
            f"{right}, fewer than a guess (limit {limits.weak}): the generator has left it behind. "
            "Fix: Alternating(n_critic=2), or a higher critic lr."
        )
    if found["oscillation"] > limits.oscillation:
        said["oscillation"] = (
            f"a loss swings with index {found['oscillation']:.2f} (limit {limits.oscillation}) and period "
            f"{found['period']:.0f} epochs. Fix: penalties=(R1(1.0),), lower lr, or ema=0.999 for the samples."
        )
    return {**said, **_of_fakes(found, limits), **_of_ratio(found, limits)}


def _of_fakes(found: Row, limits: Limits) -> dict[str, str]:
    said = {}
    if found["spread"] < limits.spread:
        said["spread"] = (
            f"two fakes are {found['spread']:.3f} times as far apart as two data (limit {limits.spread}): the "
            "generator collapses. Fix: R1 with a larger gamma, or a game that looks at pairs, PairedRelativistic()."
        )
    if found["duplicates"] > limits.duplicates:
        said["duplicates"] = (
            f"{found['duplicates']:.1%} more fakes than data sit on another one (limit {limits.duplicates:.0%}): "
            "few points are made. Fix: more latent dims, or noise=True."
        )
    if found["coverage"] < limits.coverage:
        said["coverage"] = (
            f"{found['coverage']:.1%} of the data have a fake near them (limit {limits.coverage:.0%}): modes are "
            "missing. Fix: train longer, or a larger generator."
        )
    return said


def _of_ratio(found: Row, limits: Limits) -> dict[str, str]:
    return {
        name: f"{name} has mean {found[name]:.3f} ± {found[f'{name}_stderr']:.3f} (expected 1 ± {limits.identity}): "
        "the critic's log ratio is not that of this generator. Fix: Alternating(n_critic=5), a smaller penalty, or "
        "optimality_report, which fits a fresh one."
        for name in ("real_over_fake", "fake_over_real")
        if name in found and not _near_one(found[name], found[f"{name}_stderr"], limits.identity)
    }


def _near_one(value: float, stderr: float, distance: float) -> bool:
    return isfinite(value) and abs(value - 1) <= distance + 5 * stderr
