"""What an evaluation found: means over the data with their standard errors, as a row and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor

from ...evaluation.likelihood.pareto import LEAST_DRAWS
from ...evaluation.likelihood.psis import khat_threshold
from ...evaluation.likelihood.results import NLL
from ...inference.sites.measures import Bound, Measure

# Numbers, and the kind and the measure of the likelihood.
Results = dict[str, Any]


def results_of(score: NLL, num_dims: int) -> Results:
    """Means over the data with their standard errors, and how far the weights can be relied on."""
    return {
        **_bits_per_dim(score, num_dims),
        "nll_kind": str(score.kind),
        "nll_measure": score.measure.value,
        "nelbo": score.nelbo.mean().item(),
        "nelbo_stderr": _standard_error(score.nelbo),
        "nll": score.mean,
        "nll_stderr": score.stderr,
        "ess": score.ess.mean().item(),
        "khat_threshold": khat_threshold(score.num),
        "share_khat_above": score.share_unreliable,
        "kl": score.kl.mean().item(),
        "kl_stderr": _standard_error(score.kl),
    }


def table(rows: Sequence[Results]) -> str:
    """The results of a run: one column for one seed; for several their means, and the spread between them."""
    is_scored = "nll" in rows[0]
    if len(rows) == 1:
        lines = _lines(rows[0]) if is_scored else _lines_of_samples(rows[0])
        return "\n".join(f"{name:<26} {value}" for name, value in lines.items())
    names = [row["seed"] for row in rows]
    head = f"{'':<26} {'mean of ' + str(len(rows)) + ' seeds':<24} within one run   seeds {names}"
    labels = OF_SEEDS if is_scored else OF_SAMPLES
    if rows[0].get("nll_kind") == Bound.EXACT:
        labels = OF_EXACT
    labels = labels | {n: f"{label}, nats" for n, label in FURTHER.items() if n in rows[0]}
    return "\n".join([head, *[_across(rows, name, label) for name, label in labels.items()]])


OF_SEEDS = {
    "nelbo": "-ELBO, nats",
    "nll": "NLL, nats",
    "bits_per_dim": "NLL, bits/dim",
    "kl": "KL(q | p), nats",
    "share_khat_above": "share with high k-hat",
}
OF_EXACT = {name: OF_SEEDS[name] for name in ("nll", "bits_per_dim")}

OF_SAMPLES = {
    "c2st": "C2ST accuracy",
    "mmd": "MMD squared",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "frechet": "Frechet distance",
    "nn_train": "1-NN against train",
}


def _lines_of_samples(results: Results) -> dict[str, str]:
    """How the samples of a game compare with test data; in brackets what test data themselves have."""
    lines = {}
    for name, label in OF_SAMPLES.items():
        real = results[f"{name}_of_data"]
        lines[label] = f"{_with_error(results, name)} ({real:.3f} for test data)"
    lines["samples"] = f"{results['num_test']:.0f}"
    lines["parameters"] = f"{results['parameters']:,.0f}"
    return lines


def _across(rows: Sequence[Results], name: str, label: str) -> str:
    """Mean ± standard deviation between seeds, the mean standard error within a run, and each seed."""
    if any(name not in row for row in rows):
        return f"{label:<26} none: of a {rows[0]['nll_measure']}"
    if name == "share_khat_above" and rows[0]["num_draws"] < LEAST_DRAWS:
        return f"{label:<26} {_too_few_draws(rows[0])}"
    digits = 4 if name == "bits_per_dim" else 3
    values = [row[name] for row in rows]
    between = f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
    within = ""
    if f"{name}_stderr" in rows[0]:
        within = f"± {np.mean([row[f'{name}_stderr'] for row in rows]):.{digits}f}"
    each = "  ".join(f"{value:.{digits}f}" for value in values)
    return f"{label:<26} {between:<24} {within:<16} {each}"


def _lines(results: Results) -> dict[str, str]:
    was_drawn = results["nll_kind"] != Bound.EXACT  # else it is the bound, and has no weights
    lines = {}
    if was_drawn:
        lines["-ELBO"] = f"{_with_error(results, 'nelbo')} nats"
    kind = f"{results['nll_measure']}, {results['nll_kind']}"
    lines["NLL"] = f"{_with_error(results, 'nll')} nats ({kind})"
    lines["NLL, bits/dim"] = _bits(results)
    if was_drawn:
        lines["KL(q | p)"] = f"{_with_error(results, 'kl')} nats"
        lines["effective sample size"] = f"{results['ess']:.1f} of {results['num_draws']:.0f}"
        lines |= _khat_line(results)
    lines |= _further_lines(results)
    lines["test data"] = f"{results['num_test']:.0f}"
    lines["parameters"] = f"{results['parameters']:,.0f}"
    if "seconds" in results:
        lines["training, seconds"] = f"{results['seconds']:.1f}"
    lines["evaluation, seconds"] = f"{results['evaluation_seconds']:.1f}"
    return lines


FURTHER = {
    "ais_nll": "NLL by AIS",
    "surgery_mutual_information": "mutual information",
    "surgery_marginal_kl": "marginal KL",
    "surgery_total_correlation": "total correlation",
}


def _further_lines(results: Results) -> dict[str, str]:
    """What was asked for besides."""
    lines = {}
    for name, label in FURTHER.items():
        if name in results:
            lines[label] = f"{_with_error(results, name)} nats"
    if "check" in results:
        lines["checks"] = f"{results['check']}, see check-seed-{results['seed']}.txt"
    return lines


def _khat_line(results: Results) -> dict[str, str]:
    """The share of data whose weights can't be relied on, or that the draws are too few to tell."""
    if results["num_draws"] < LEAST_DRAWS:
        return {"k-hat": _too_few_draws(results)}
    above = f"data with k-hat > {results['khat_threshold']:.2f}"
    return {above: f"{results['share_khat_above']:.1%}"}


def _too_few_draws(results: Results) -> str:
    return f"needs {LEAST_DRAWS} draws or more (--num), got {results['num_draws']:.0f}"


def _bits_per_dim(score: NLL, num_dims: int) -> Results:
    """Bits per dim of a mass; a density of pixels on levels, or a joint density at a point, has none."""
    if score.measure is not Measure.MASS:
        return {}
    bits = score.bits_per_dim(num_dims)
    return {"bits_per_dim": bits.value, "bits_per_dim_stderr": bits.stderr}


def _standard_error(per_datum: Tensor) -> float:
    return per_datum.std().item() / sqrt(len(per_datum))


def _bits(results: Results) -> str:
    if "bits_per_dim" not in results:
        return f"none: of a {results['nll_measure']}"
    return _with_error(results, "bits_per_dim", digits=4)


def _with_error(results: Results, name: str, digits: int = 3) -> str:
    return f"{results[name]:.{digits}f} ± {results[f'{name}_stderr']:.{digits}f}"
