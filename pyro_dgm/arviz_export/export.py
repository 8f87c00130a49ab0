"""Export to ArviZ: draws, log weights and predictions of a fitted pair, with dims named after the plates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .attributes import notes, origin, with_origin, with_units
from .containers import container_of
from .datatree import (
    CONDITIONAL,
    DATUM,
    Arrays,
    concat_data,
    cut_into_chains,
    dataset,
    num_chains_of,
    per_datum_dataset,
    refused_to_loo,
)
from .joint_reading import JointReading, has_densities
from .naming import check_index, check_names
from .reading import Block, Reading, constants, evenly_spread

if TYPE_CHECKING:
    import xarray

KEPT = 200  # data whose draws are kept where each has latents of its own
NUMBERS = 20_000_000  # log densities that are kept where all data share a draw


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
    r"""Draws $z^{(k)}_i \sim q(z \mid x_i)$ and statistics of data, in the groups of ArviZ's InferenceData schema.

    Groups: `posterior` (latent sites, and the values of `pyro.deterministic`), `posterior_predictive` (observed sites),
    `log_likelihood` and `log_prior` (log density of each observed and latent site, pointwise in all its plates),
    `sample_stats` (`lp` = log p(x, z), `log_q`, `log_weight` = lp − log_q, and `factor[f]` of a `pyro.factor` in the
    model, a part of lp), `prior` and `prior_predictive` (each draw is a data set of the model, for the contexts of the
    data), `observed_data`, `constant_data` (further arguments), `per_datum` (`elbo`, `log_p`, `log_p_stderr`, `kl`,
    `khat`, `ess`, see `per_datum_dataset`). Log densities are in nats, discrete sites are integers.

    The draws are independent, and are cut into four chains, so that R-hat and ESS have something to compare; into
    three or two where four does not divide `num`; seven draws or fewer and a prime number of them stay one chain.

    Size: draws are kept of at most `max_data` data, evenly spread over the set; `per_datum` describes all of them. The
    coordinate `datum` is the index in the set; the attribute `kept` of a group says what it holds.

    Where all data share a draw θ, it has no datum dim, `sample_stats` are of all data at once, resampling takes joint
    draws, and the draws of `prior` are data sets in the place of the given one. Without local latents `az.loo` and
    `az.compare` work: of the posterior, as far as the draws are from it (`resampled=True`).

    `az.loo` and `az.waic` refuse local latents, with `var_name=` and from files as well: without $x_i$ its $z_i$ is
    one of the prior. Their $\log p(x_i \mid z_i)$ is in the group `conditional_log_likelihood` in the place of
    `log_likelihood`, whose names say why; `compare_elpd` of `nll` results does what LOO is for.

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
        `.to_netcdf(path, engine="h5netcdf")` and zarr by `.to_zarr(path)`; `results.read_posterior` reads either.

    Shape:
        sites `(chain, draw, *plates, datum, *event)`; log densities of sites `(chain, draw, *plates, datum)`;
        statistics of draws `(chain, draw, datum)`; data `(*plates, datum, *event)`; chain · draw = K.

    Raises:
        ValueError: for names that are unknown or taken, what `nll` refuses, a wrong number of names, or draws to be
            resampled of a guide that is a point mass.

    References:
        Merkle, Furr, Rabe-Hesketh 2019, *Bayesian comparison of latent variable models: conditional versus marginal
        likelihoods*, arXiv:1802.04452.
    """
    dims, coords, further = dims or {}, coords or {}, dict(extra or {})
    with session(model, guide, *batch, num=num, chunk=chunk, seed=seed) as pair:
        if resampled:
            require_density("to_arviz: resampled=True", pair.structure.points)
        index = coords.get(DATUM, range(len(pair)))
        check_index(index, len(pair))
        kept = _kept_data(pair, max_data)
        reading = Reading(pair, dims, resampled, prior)
        groups, blocks = _read(reading, kept)
        check_names(groups, dims, coords, further)
        if "per_datum" not in further and _has_numbers_per_datum(pair, blocks):
            further["per_datum"] = _per_datum(pair, blocks, len(kept), index)
        measure = pair.structure.measure.value
        about = notes(groups, measure, len(kept), len(pair), resampled=resampled)
    labels = {**coords, DATUM: [index[i] for i in kept.tolist()]}
    return container_of(_datasets(groups, labels, about, further))


def _datasets(
    groups: Mapping[str, Arrays],
    coords: Mapping[str, Sequence[Any]],
    about: Mapping[str, Mapping[str, str]],
    further: Mapping[str, xarray.Dataset],
) -> dict[str, xarray.Dataset]:
    """The groups as datasets, each with its notes, units and origin as attributes."""
    made = origin()
    found = {}
    for name, arrays in groups.items():
        found[name] = with_units(name, dataset(arrays, coords, about[name]))
    found |= further
    return {name: with_origin(group, made) for name, group in found.items()}


def _kept_data(pair: Session, most: int | None) -> Tensor:
    """Indices of the data whose draws are kept, with a default for how many."""
    if most is None:
        most = max(KEPT, NUMBERS // pair.num) if pair.structure.has_globals else KEPT
    require_positive(max_data=most)
    return evenly_spread(most, len(pair))


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
    return per_datum_dataset(_nll(pair, blocks, num_kept), index)


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


def _groups(reading: Reading, found: dict[str, Arrays], batch: Batch) -> dict[str, Arrays]:
    """The groups of all data that are kept in chains, with the further arguments; LOO is refused to local latents."""
    pair: Session = reading.pair
    groups = {name: cut_into_chains(arrays, pair.num) for name, arrays in found.items()}
    if _has_locals(pair, groups):
        groups[CONDITIONAL] = groups["log_likelihood"]
        groups["log_likelihood"] = refused_to_loo(num_chains_of(pair.num), pair.num)
    constant_data = constants(pair, batch, reading.dims)
    if constant_data:
        groups["constant_data"] = constant_data
    return groups


def _has_locals(pair: Session, groups: Mapping[str, Arrays]) -> bool:
    """Whether a datum has latents of its own, which are gone where it is left out."""
    structure = pair.structure
    if structure.has_globals:
        return bool(set(structure.latent) - set(structure.shared))
    return bool(groups["posterior"])
