"""The torch-free side of the comparison of models: what `az.compare` takes and gives, in ArviZ 0.x and 1.x.

This module imports neither torch nor Pyro, nor anything that does, so that every ArviZ can test it by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

NAMES = {"elpd_loo": "elpd"}  # ArviZ 0.x knows no other label, but nothing is left out here


def pointwise_elpd(log_p: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    r"""$\log p_m(x_i) - \max_{m'} \log p_{m'}(x_i)$: differences and stacking weights are the same, and exp is safe."""
    best = np.max(list(log_p.values()), axis=0)
    return {name: values - best for name, values in log_p.items()}


def elpd_object(
    log_p: np.ndarray, pointwise: np.ndarray, khat: np.ndarray, num_draws: int, good_k: float
) -> Any:
    r"""$\sum_i \log p(x_i)$ of held-out data as `arviz.ELPDData`, with $\sqrt{N \mathrm{Var}_i}$ as standard error.

    Args:
        log_p: of each datum `(N,)`.
        pointwise: what stands for it in differences and weights `(N,)`, see `pointwise_elpd`.
        khat: of each datum `(N,)`.
        num_draws: number of draws that `log_p` is estimated with.
        good_k: largest k-hat without a warning.
    """
    import arviz
    import xarray

    found = {
        "elpd": float(log_p.sum()),
        "se": float(np.sqrt(len(log_p) * log_p.var())),
        "p": np.nan,
    }
    about = {
        "n_samples": num_draws,
        "n_data_points": len(log_p),
        "warning": bool((khat > good_k).any()),
    }
    arrays = {
        "elpd_i": xarray.DataArray(pointwise, dims="datum"),
        "pareto_k": xarray.DataArray(khat, dims="datum"),
    }
    fields = {**found, **about, **arrays, "scale": "log", "good_k": good_k}
    if not arviz.__version__.startswith("0."):
        return arviz.ELPDData(**fields)
    labels = {"elpd": "elpd_loo", "p": "p_loo", "elpd_i": "loo_i"}
    return arviz.ELPDData(
        data=list(fields.values()), index=[labels.get(name, name) for name in fields]
    )


def comparison_table(elpds: Mapping[str, Any]) -> pandas.DataFrame:
    """`az.compare` in one form for every ArviZ: rank, elpd, se, elpd_diff (≤ 0), dse, weight, warning; best first."""
    import arviz

    exact: dict[str, Any] = {} if arviz.__version__.startswith("0.") else {"round_to": "none"}
    table = arviz.compare(dict(elpds), **exact).rename(columns=NAMES)
    table["elpd_diff"] = -table["elpd_diff"].abs()  # 0.x: best minus model; 1.x: model minus best
    table["warning"] = [bool(elpds[name]["warning"]) for name in table.index]
    return table[["rank", "elpd", "se", "elpd_diff", "dse", "weight", "warning"]]
