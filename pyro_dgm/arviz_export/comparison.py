"""Comparison of models on held-out data, through ArviZ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.likelihood.psis import khat_threshold
from ..evaluation.likelihood.results import PerDatum
from ..inference.sites.measure_checks import require_one_kind, require_one_measure
from .elpd import comparison_table, elpd_object, pointwise_elpd

if TYPE_CHECKING:
    import pandas


def compare_elpd(results: Mapping[str, PerDatum]) -> pandas.DataFrame:
    r"""$\sum_i \log p_a(x_i) - \log p_b(x_i)$ over held-out data, with its standard error, paired over the data.

    The table of `az.compare` on `elpd_data(results)`, the best model first, in nats of the whole set:

    - `rank`, `elpd` $= \sum_i \log p(x_i)$ and `se` $= \sqrt{N \mathrm{Var}_i \log p(x_i)}$;
    - `elpd_diff` to the best model (≤ 0) and `dse`, the same error of the paired differences: it is `dse`, not `se`,
      that tells two models apart;
    - `weight` of stacking: the mixture of the models that predicts the data best;
    - `warning`: whether a k-hat is above its threshold; `nll_kind`: what sort of bound −log p is, for a bound that is
      tighter for one model favours it; `nll_measure`: what p is, a mass or a density, the same in all rows.

    Args:
        results: name → `nll` or `ais` of one model, or a `GivenNLL`; all on the same data in the same order.

    Raises:
        ValueError: for fewer than two results, results for different numbers of data, results of different measures (a
            mass beside a density), one that states none beside one that does, a joint density at a point, or a
            posterior predictive density beside a likelihood.

    References:
        Vehtari, Gelman, Gabry 2017, *Practical Bayesian model evaluation*, arXiv:1507.04544;
        Yao et al. 2018, *Using stacking to average Bayesian predictive distributions*, arXiv:1704.02030.
    """
    table = comparison_table(elpd_data(results))
    table["nll_kind"] = [str(results[name].kind) for name in table.index]
    table["nll_measure"] = [results[name].measure.value for name in table.index]
    return table


def elpd_data(results: Mapping[str, PerDatum]) -> dict[str, Any]:
    r"""Held-out $\log p(x_i)$ of some models, as `az.compare` and then `az.plot_compare` take it.

    `az.plot_compare(az.compare(elpd_data(results)))`. The elpd is the plain sum over held-out data: nothing is left out
    or weighted, though ArviZ 0.x labels it `elpd_loo`, the only label that it knows. Pointwise values are relative to
    the best model of each datum, which changes neither differences nor weights and keeps `az.compare` from underflow
    beyond 745 nats per datum.

    Args:
        results: name → `nll` or `ais` of one model, or a `GivenNLL`; all on the same data in the same order.

    Returns:
        name → `arviz.ELPDData`.

    Raises:
        ValueError: as `compare_elpd`.
    """
    counts = {name: len(result.per_datum) for name, result in results.items()}
    if len(counts) < 2 or len(set(counts.values())) > 1:
        raise ValueError(
            f"compare: expected nll of two or more models on the same data, got {counts} data. "
            "Fix: compare_elpd({'a': nll(model_a, guide_a, test), 'b': nll(model_b, guide_b, test)})."
        )
    require_one_measure("compare", {name: result.measure for name, result in results.items()})
    require_one_kind("compare", {name: str(result.kind) for name, result in results.items()})
    log_p = {name: -np.asarray(result.per_datum) for name, result in results.items()}
    pointwise = pointwise_elpd(log_p)
    return {
        name: elpd_object(
            log_p[name], pointwise[name], np.asarray(r.tails()), num, khat_threshold(num)
        )
        for name, r in results.items()
        for num in [getattr(r, "num", 1)]  # exact figures have no draws
    }
