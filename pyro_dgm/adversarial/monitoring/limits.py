"""The limits beyond which a monitor warns, and the text of its warnings."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from statistics import NormalDist

from ...evaluation.estimate import student_quantile
from ...inference.training.history import Row

NUM_STDERRS = 5  # of a mean over many data: a false alarm in three million


@dataclass(frozen=True)
class Limits:
    r"""Where the monitors warn; the ideal of each in parentheses.

    Attributes:
        identity: distance of $E_p\,r$ and $E_\pi\,1/r$ from 1, beyond 5 standard errors, or as many as Student's t
            takes for it at few data (ideal 0).
        oscillation: index of a loss (ideal 0).
        strong: share of the pairs that the critic orders right, at most (ideal ½; 0.92 for normals two sd
            apart).
        weak: the same share, at least, less as many standard errors.
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


def limit_warnings(row: Row, limits: Limits, num: int) -> dict[str, str]:
    """The warnings of a row of a monitor, by name of the limit: the value, the limit, and what to do.

    Args:
        row: what was measured.
        limits: where to warn.
        num: data of either kind that it was measured with.
    """
    num_stderrs = student_quantile(NormalDist().cdf(NUM_STDERRS), num - 1)
    return {
        **_critic_warnings(row, limits, num_stderrs),
        **_swing_warnings(row, limits),
        **_fake_warnings(row, limits),
        **_ratio_warnings(row, limits, num_stderrs),
    }


def _critic_warnings(row: Row, limits: Limits, num_stderrs: float) -> dict[str, str]:
    texts = {}
    balance = row["balance"]
    share = f"the critic orders {balance:.3f} of the pairs right"
    if balance > limits.strong:
        texts["strong"] = (
            f"{share} (limit {limits.strong}): it is too strong to teach. "
            "Fix: a larger penalty, R1(10.0), or a lower critic lr."
        )
    if balance < limits.weak - num_stderrs * row["balance_stderr"]:
        texts["weak"] = (
            f"{share}, fewer than a guess (limit {limits.weak}): the generator has left it behind. "
            "Fix: Alternating(n_critic=2), or a higher critic lr."
        )
    return texts


def _swing_warnings(row: Row, limits: Limits) -> dict[str, str]:
    index = row["oscillation"]
    if not index > limits.oscillation:
        return {}
    text = (
        f"a loss swings with index {index:.2f} (limit {limits.oscillation}) "
        f"and period {row['period']:.0f} epochs. "
        "Fix: penalties=(R1(1.0),), lower lr, or ema=0.999 for the samples."
    )
    return {"oscillation": text}


def _fake_warnings(row: Row, limits: Limits) -> dict[str, str]:
    texts = {}
    if row["spread"] < limits.spread:
        texts["spread"] = (
            f"two fakes are {row['spread']:.3f} times as far apart as two data "
            f"(limit {limits.spread}): the generator collapses. "
            "Fix: R1 with a larger gamma, or a game that looks at pairs, PairedRelativistic()."
        )
    if row["duplicates"] > limits.duplicates:
        texts["duplicates"] = (
            f"{row['duplicates']:.1%} more fakes than data sit on another one "
            f"(limit {limits.duplicates:.0%}): few points are made. "
            "Fix: more latent dims, or noise=True."
        )
    if row["coverage"] < limits.coverage:
        texts["coverage"] = (
            f"{row['coverage']:.1%} of the data have a fake near them "
            f"(limit {limits.coverage:.0%}): modes are missing. "
            "Fix: train longer, or a larger generator."
        )
    return texts


def _ratio_warnings(row: Row, limits: Limits, num_stderrs: float) -> dict[str, str]:
    """Of the mean ratios, which a game without a log ratio does not have."""
    texts: dict[str, str] = {}
    for name in ("real_over_fake", "fake_over_real"):
        if name not in row:
            continue
        mean, stderr = row[name], row[f"{name}_stderr"]
        is_near_one = isfinite(mean) and abs(mean - 1) <= limits.identity + num_stderrs * stderr
        if not is_near_one:
            texts[name] = (
                f"{name} has mean {mean:.3f} ± {stderr:.3f} (expected 1 ± {limits.identity}): "
                "the critic's log ratio is not that of this generator. "
                "Fix: Alternating(n_critic=5), a smaller penalty, "
                "or optimality_report, which fits a fresh one."
            )
    return texts
