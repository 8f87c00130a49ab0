"""Export to ArviZ: draws, log weights and predictions of a fitted pair, with dims named after the plates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..contract import PyroProgram
from ..display.progress import watched
from ..evaluation.likelihood.importance import Scores, nll_of
from ..evaluation.likelihood.results import NLL
from ..inference.data.tensors import Batch, split_rows
from ..inference.run.blocks import rows_of_block, seeded
from ..inference.run.sessions import Session, require_positive, session
from ..inference.sites.measure_checks import require_density
from .datatree import (
    DATUM,
    NOT_FOR_LOO,
    REFUSAL,
    Arrays,
    concat_data,
    container,
    dataset,
    per_datum_dataset,
    refused_to_loo,
)
from .joint_reading import JointReading, has_densities
from .reading import Block, Reading, constants, evenly_spread

if TYPE_CHECKING:
    import xarray

KEPT = 200  # data whose draws are kept where each has latents of its own
NUMBERS = 20_000_000  # log densities that are kept where all data share a draw
GUIDE = "independent, from the guide q(z | x), unweighted; weights: sample_stats.log_weight"
RESAMPLED = (
    "from the guide q(z | x), resampled with replacement by Pareto-smoothed weights, so draws of p(z | x) as far as "
    "per_datum.khat is below its threshold; not to be weighted again"
)


def to_arviz(
    model: PyroProgram,
    guide: PyroProgram,
    *batch: Any,
    num: int = 1000,
    max_data: int | None = None,
    resampled: bool = False,
    prior: bool = True,
    extra: Mapping[str, xarray.Dataset] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
    chunk: int = 20_000,
) -> Any:
    r"""Draws $z^{(k)}_i \sim q(z \mid x_i)$ and statistics of data as ArviZ reads them: one chain of independent draws.

    Groups: `posterior` (latent sites, and the values of `pyro.deterministic`), `posterior_predictive` and
    `log_likelihood` (observed sites), `sample_stats` (`lp` = log p(x, z), `log_q`, `log_weight` = lp − log_q, and
    `factor[f]` of a `pyro.factor` in the model, a part of lp), `prior` and `prior_predictive` (each draw is a data set
    of the model, for the contexts of the data), `observed_data`, `constant_data` (further arguments), `per_datum`
    (`elbo`, `log_p`, `log_p_stderr`, `kl`, `khat`, `ess`, see `per_datum_dataset`). All in nats.

    Size: draws are kept of at most `max_data` data, evenly spread over the set; `per_datum` describes all of them. The
    coordinate `datum` is the index in the set; the attribute `kept` of a group says what it holds.

    Where all data share a draw θ, it has no datum dim, `sample_stats` are of all data at once, resampling takes joint
    draws, and `log_prior` (log p of every latent site) is a further group, for sensitivity to priors; the draws are cut
    into four chains, and those of `prior` are data sets in the place of the given one. Without local latents `az.loo`
    and `az.compare` work: of the posterior, as far as the draws are from it (`resampled=True`).

    `az.loo` and `az.waic` refuse local latents, for p(x | z) of a local z is nothing to leave out:
    `log_likelihood.attrs["loo"]` has the reason. `compare_elpd` of `nll` results does what LOO is for.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data to describe, observation first, or a loader of them.
        num: draws K per datum.
        max_data: data whose draws are kept; `max_data=len(x)` keeps all. Default: 200; where all data share a draw,
            so that LOO is one of the whole set, all whose log densities fit into 20 million numbers.
        resampled: whether the draws are resampled with Pareto-smoothed importance weights, which brings them from the
            guide to the posterior; the prior's are not.
        prior: whether the model is drawn from as well, which takes a model that generates.
        extra: further groups, as `{"training": training_dataset(trainer.history), "prior_sbc": sbc_dataset(sbc(…))}`;
            `"per_datum": diagnostics.per_datum_dataset(nll(…))` saves its computation here.
        dims: site or further argument → names of its event dims; default `<site>_dim_0`, ….
        coords: dim → coordinate values; `datum`, one for each of all data, counts from 0 unless given.
        seed: of the draws.
        chunk: how many (draw, datum) pairs are in memory as tensors at once.

    Returns:
        `arviz.InferenceData` with ArviZ 0.x, `xarray.DataTree` with ArviZ 1.x. Both write netCDF by
        `.to_netcdf(path, engine="h5netcdf")` and zarr by `.to_zarr(path)`, that of 0.x by
        `.to_datatree().to_zarr(path)`; `save_netcdf` of `pyro_dgm.arviz_export.netcdf` leaves a whole file or none.

    Shape:
        sites `(chain=1, draw=K, *plates, datum, *event)`; statistics of draws `(1, K, datum)`; data `(datum, *event)`.

    Raises:
        ValueError: for names that are unknown or taken, what `nll` refuses, a wrong number of names, or draws to be
            resampled of a guide that is a point mass.
    """
    dims, coords, further = dims or {}, coords or {}, dict(extra or {})
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        if resampled:
            require_density("to_arviz: resampled=True", pair.structure.points)
        index = coords.get(DATUM, range(len(pair)))
        _check_index(index, len(pair))
        kept = _kept_data(pair, max_data)
        reading = Reading(pair, dims, resampled, prior)
        groups, blocks = _read(reading, kept)
        _check_names(groups, dims, coords, further)
        if "per_datum" not in further and _has_numbers_per_datum(pair, blocks):
            further["per_datum"] = _per_datum(pair, blocks, len(kept), index)
        notes = _notes(groups, reading, len(kept))
    labels = {**coords, DATUM: [index[i] for i in kept.tolist()]}
    return with_table(container({**_datasets(groups, labels, notes), **further}))


def _kept_data(pair: Session, most: int | None) -> Tensor:
    """Indices of the data whose draws are kept, with a default for how many."""
    if most is None:
        most = max(KEPT, NUMBERS // pair.num) if pair.structure.has_globals else KEPT
    require_positive(max_data=most)
    return evenly_spread(most, len(pair))


def with_table(found: Any) -> Any:
    """The container of ArviZ 0.x as one whose table is of the groups that have draws; that of 1.x as it is."""
    import xarray

    if isinstance(found, xarray.DataTree):
        return found
    from .inference_data import InferenceData  # of ArviZ 0.x alone

    return InferenceData(**dict(found.items()))


def _datasets(
    groups: Mapping[str, Arrays],
    coords: Mapping[str, Sequence[Any]],
    notes: Mapping[str, Mapping[str, str]],
) -> dict[str, xarray.Dataset]:
    """The groups as datasets, each with its notes and its origin as attributes."""
    made = _origin()
    found = {}
    for name, arrays in groups.items():
        found[name] = dataset(arrays, coords, {**made, **notes[name]})
    return found


def _origin() -> dict[str, str]:
    """When and by what a group was made: the attributes that ArviZ's own converters give."""
    import arviz

    return {
        "created_at": datetime.now(UTC).isoformat(),
        "arviz_version": arviz.__version__,
        "inference_library": "pyro_dgm",
        "inference_library_version": version("pyro-dgm"),
    }


def _read(reading: Reading, kept: Tensor) -> tuple[dict[str, Arrays], list[Block]]:
    """The groups of the data that are kept, and their blocks: none where all data share a draw."""
    pair: Session = reading.pair
    rows = pair.rows(kept.to(pair.device))
    blocks: list[Block] = []
    if pair.structure.has_globals:
        found = JointReading(reading, kept).groups()
    else:
        blocks = _read_blocks(reading, rows)
        found = _concat_blocks(blocks)
    return _groups(reading, found, rows), blocks


def _read_blocks(reading: Reading, batch: Batch) -> list[Block]:
    """The data that are kept, read in blocks."""
    pair: Session = reading.pair
    _ = pair.structure  # refuses, before the first draw, what can't be scored
    rows = rows_of_block(pair.num, pair.device)
    num_blocks = -(-len(batch[0]) // rows)
    blocks = watched(split_rows(batch, rows), num_blocks, "block", "to_arviz")
    return [reading.read(block, i) for i, block in enumerate(seeded(blocks, pair.seed))]


def _has_numbers_per_datum(pair: Session, blocks: Sequence[Block]) -> bool:
    """Whether there is an `nll` of each datum; where all share a draw, no sum may go over data."""
    return bool(blocks) or has_densities(pair.draw(num=1, sum_guide=True))  # as `nll` weighs them


def _per_datum(
    pair: Session, blocks: Sequence[Block], num_kept: int, index: Sequence[Any]
) -> xarray.Dataset:
    """What `nll` says of each of all data."""
    found = per_datum_dataset(_nll(pair, blocks, num_kept), index)
    return found.assign_attrs(_origin())


def _nll(pair: Session, blocks: Sequence[Block], num_kept: int) -> NLL:
    """`nll` of all data under the session's seed, from the draws that are exported where all data are."""
    if num_kept < len(pair) or pair.structure.is_exact or not blocks:
        pair.reseed()
        return nll_of(pair)
    scores = Scores(pair)
    for block in blocks:
        scores.add(block.weights)
    return scores.nll()


def _concat_blocks(blocks: Sequence[Block]) -> dict[str, Arrays]:
    """The groups of all blocks as those of one."""
    groups = {}
    for name in blocks[0].groups:
        groups[name] = concat_data([block.groups[name] for block in blocks])
    return groups


def _groups(reading: Reading, groups: dict[str, Arrays], batch: Batch) -> dict[str, Arrays]:
    """The groups of all data that are kept, with the further arguments; LOO is refused to local latents."""
    pair: Session = reading.pair
    structure = pair.structure
    if set(structure.latent) - set(structure.shared) or (
        groups["posterior"] and not structure.has_globals
    ):
        groups["log_likelihood"] = refused_to_loo(groups["log_likelihood"])
    constant_data = constants(pair, batch, reading.dims)
    if constant_data:
        groups["constant_data"] = constant_data
    return groups


def _notes(groups: Mapping[str, Arrays], reading: Reading, kept: int) -> dict[str, dict[str, str]]:
    """What is to be known of each group, as attributes."""
    total = len(reading.pair)
    which = f"{kept} of {total} data, evenly spread"
    if kept == total:
        which = f"all {total} data"
    draws = {"draws": RESAMPLED if reading.resampled else GUIDE}
    of_p = {"unit": "nats", "measure of p": reading.pair.structure.measure.value}
    refusal = {"loo": REFUSAL} if NOT_FOR_LOO in groups["log_likelihood"] else {}
    of_model = {"draws": "independent, from the model"}
    notes = {
        "posterior": draws,
        "posterior_predictive": draws,
        "log_likelihood": {**draws, **of_p, **refusal},
        "log_prior": {**draws, "unit": "nats"},
        "sample_stats": {**draws, **of_p, "log_weight": "lp - log_q"},
        "prior": of_model,
        "prior_predictive": of_model,
    }
    return {name: {**notes.get(name, {}), "kept": which} for name in groups}


def _check_names(
    groups: Mapping[str, Arrays],
    dims: Mapping[str, Sequence[str]],
    coords: Mapping[str, Sequence[Any]],
    extra: Iterable[str],
) -> None:
    """Refuse names of sites, dims and groups that are unknown or taken."""
    sites = [*groups["posterior"], *groups["observed_data"], *groups.get("constant_data", ())]
    _check_known("dims of sites", dims, sites)
    known_dims: set[str] = set()
    for arrays in groups.values():
        for names, _ in arrays.values():
            known_dims |= set(names)
    _check_known("coords of dims", coords, known_dims)
    taken = sorted(set(extra) & set(groups))
    if taken:
        raise ValueError(
            f"to_arviz: expected extra groups of names other than {sorted(groups)}, got {taken}. "
            f"Fix: extra={{'my_{taken[0]}': …}}."
        )


def _check_known(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    known, unknown = sorted(set(names)), sorted(set(given) - set(names))
    if unknown:
        raise ValueError(
            f"to_arviz: expected {what} among {known}, got {unknown}. Fix: one of {known}."
        )


def _check_index(index: Sequence[Any], num: int) -> None:
    if len(index) != num:
        raise ValueError(
            f"to_arviz: expected coords['{DATUM}'] with a name for each of all {num} data, got {len(index)}. "
            f"Fix: coords={{'{DATUM}': range({num})}}."
        )
