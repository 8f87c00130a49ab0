"""Export to ArviZ: draws, log weights and predictions of a fitted pair, with dims named after the plates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..evaluation.likelihood.importance import nll
from ..inference.run.data import split_rows, take_rows
from ..inference.run.estimates import estimating, placed
from ..inference.run.session import check_pair, require_positive
from .datatree import (
    DATUM,
    REFUSAL,
    Arrays,
    container,
    dataset,
    joined,
    per_datum_dataset,
    refused_to_loo,
)
from .reading import Reading, constants

if TYPE_CHECKING:
    import xarray

GUIDE = "independent, from the guide q(z | x), unweighted; weights: sample_stats.log_weight"
RESAMPLED = (
    "from the guide q(z | x), resampled with replacement by Pareto-smoothed weights, so draws of p(z | x) as far as "
    "per_datum.khat is below its threshold; not to be weighted again"
)


def to_arviz(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 1000,
    max_data: int = 200,
    resampled: bool = False,
    prior: bool = True,
    extra: Mapping[str, xarray.Dataset] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    seed: int = 0,
    chunk: int = 20_000,
) -> Any:
    r"""Draws $z^{(k)}_i \sim q(z \mid x_i)$ and statistics of data as ArviZ reads them: one chain of independent draws.

    Groups: `posterior` (latent sites), `posterior_predictive` and `log_likelihood` (observed sites), `sample_stats`
    (`lp` = log p(x, z), `log_q`, `log_weight` = lp − log_q), `prior` and `prior_predictive` (each draw is a data set of
    the model, for the contexts of the data), `observed_data`, `constant_data` (further arguments), `per_datum` (`elbo`,
    `log_p`, `log_p_stderr`, `kl`, `khat`, `ess`, see `per_datum_dataset`). All in nats.

    Size: draws are kept of at most `max_data` data, evenly spread over the set; `per_datum` describes all of them. The
    coordinate `datum` is the index in the set; the attribute `kept` of a group says what it holds.

    `az.loo` and `az.waic` refuse the result, for p(x | z) of a local z is nothing to leave out:
    `log_likelihood.attrs["loo"]` has the reason. `compare_elpd` of `nll` results does what LOO is for.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data to describe, observation first.
        num: draws K per datum.
        max_data: data whose draws are kept; `max_data=len(x)` keeps all.
        resampled: whether the draws are resampled with Pareto-smoothed importance weights, which brings them from the
            guide to the posterior; the prior's are not.
        prior: whether the model is drawn from as well, which takes a model that generates.
        extra: further groups, as `{"training": training_dataset(trainer.history), "prior_sbc": sbc_dataset(sbc(…))}`;
            `"per_datum": per_datum_dataset(nll(…))` saves its computation here.
        dims: site or further argument → names of its event dims; default `<site>_dim_0`, ….
        coords: dim → coordinate values; `datum`, one for each of all data, counts from 0 unless given.
        seed: of the draws.
        chunk: how many (draw, datum) pairs are in memory as tensors at once.

    Returns:
        `arviz.InferenceData` with ArviZ 0.x, `xarray.DataTree` with ArviZ 1.x. Both write netCDF by
        `.to_netcdf(path, engine="h5netcdf")` and zarr by `.to_zarr(path)`, that of 0.x by
        `.to_datatree().to_zarr(path)`.

    Shape:
        sites `(chain=1, draw=K, *plates, datum, *event)`; statistics of draws `(1, K, datum)`; data `(datum, *event)`.

    Raises:
        ValueError: for names that are unknown or taken, what `nll` refuses, or a wrong number of names.
    """
    check_pair(model, guide)
    require_positive(num=num, max_data=max_data, chunk=chunk)
    batch, further = placed(model, batch), dict(extra or {})
    given = {DATUM: range(len(batch[0])), **(coords or {})}
    kept = (
        torch.linspace(0, len(batch[0]) - 1, min(max_data, len(batch[0])), dtype=torch.float64)
        .round()
        .long()
    )
    _one_name_each(given[DATUM], len(batch[0]))
    reading = Reading(model, guide, num, dims or {}, resampled, prior)
    groups = _groups(
        reading, take_rows(batch, kept.to(batch[0].device)), seed, max(1, chunk // num)
    )
    _check_names(groups, dims or {}, coords or {}, further)
    if "per_datum" not in further:
        result = nll(model, guide, *batch, num=num, chunk=chunk, seed=seed)
        further["per_datum"] = per_datum_dataset(result, given[DATUM])
    labels = {**given, DATUM: [given[DATUM][i] for i in kept.tolist()]}
    about = _attributes(groups, len(batch[0]), len(kept), resampled=resampled)
    return container({**{n: dataset(a, labels, about[n]) for n, a in groups.items()}, **further})


def _groups(reading: Reading, batch: tuple, seed: int, rows: int) -> dict[str, Arrays]:
    """The groups of all data that are kept, read in blocks."""
    with estimating(reading.model, reading.guide, seed=seed):
        blocks = [reading.groups(block) for block in split_rows(batch, rows)]
    groups = {name: joined([block[name] for block in blocks]) for name in blocks[0]}
    if groups["posterior"]:
        groups["log_likelihood"] = refused_to_loo(groups["log_likelihood"])
    fixed = constants(reading.model, batch, reading.dims)
    return {**groups, "constant_data": fixed} if fixed else groups


def _attributes(
    groups: Iterable[str], total: int, kept: int, *, resampled: bool
) -> dict[str, dict[str, str]]:
    """What is to be known of each group."""
    which = f"all {total} data" if kept == total else f"{kept} of {total} data, evenly spread"
    draws = {"draws": RESAMPLED if resampled else GUIDE}
    notes = {
        "posterior": draws,
        "posterior_predictive": draws,
        "log_likelihood": {**draws, "unit": "nats", "loo": REFUSAL},
        "sample_stats": {**draws, "unit": "nats", "log_weight": "lp - log_q"},
        "prior": {"draws": "independent, from the model"},
        "prior_predictive": {"draws": "independent, from the model"},
    }
    return {name: {**notes.get(name, {}), "kept": which} for name in groups}


def _check_names(
    groups: Mapping[str, Arrays], dims: Mapping, coords: Mapping, extra: Iterable[str]
) -> None:
    sites = [*groups["posterior"], *groups["observed_data"], *groups.get("constant_data", ())]
    _known("dims of sites", dims, sites)
    _known(
        "coords of dims",
        coords,
        [d for arrays in groups.values() for names, _ in arrays.values() for d in names],
    )
    taken = sorted(set(extra) & set(groups))
    if taken:
        raise ValueError(
            f"to_arviz: expected extra groups of names other than {sorted(groups)}, got {taken}."
        )


def _known(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"to_arviz: expected {what} among {sorted(set(names))}, got {unknown}.")


def _one_name_each(index: Sequence, num: int) -> None:
    if len(index) != num:
        raise ValueError(
            f"to_arviz: expected coords['{DATUM}'] with a name for each of all {num} data, got {len(index)}. "
            f"Fix: coords={{'{DATUM}': range({num})}}."
        )
