"""Export to ArviZ: draws, log weights and predictions of a fitted pair, with dims named after the plates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .contract import DATA, PARTICLES
from .inference.estimating import at_least_one, check_pair, estimating, placed
from .inference.particles import Particles, draw
from .inference.preflight import check_sites
from .inference.traces import Site, plate_names, plate_value

if TYPE_CHECKING:
    import xarray

Groups = dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]]
DATUM = "datum"
NOTES = {
    "posterior": {"draws": "independent, from the guide q(z | x), unweighted; weights: sample_stats.log_weight"},
    "sample_stats": {"unit": "nats", "log_weight": "lp - log_q"},
}


def to_arviz(
    model: Callable,
    guide: Callable,
    *batch: Any,
    num: int = 1000,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    seed: int = 0,
    chunk: int = 20_000,
) -> Any:
    r"""Posterior draws $z^{(k)}_i \sim q(z \mid x_i)$ of data and all that ArviZ reads with them.

    Groups: `posterior` (latent sites), `posterior_predictive` and `log_likelihood` (observed sites), `sample_stats`
    (`lp` = log p(x, z), `log_q`, `log_weight` = lp − log_q, in nats), `observed_data`. One chain of independent draws.

    Args:
        model: any Pyro program that keeps the contract.
        guide: its guide.
        batch: the data to describe, observation first.
        num: draws K per datum.
        dims: site → names of its event dims; default `<site>_dim_0`, ….
        coords: dim → coordinate values; `datum` counts from 0 unless given.
        seed: of the draws.
        chunk: how many (draw, datum) pairs are in memory as tensors at once.

    Returns:
        `arviz.InferenceData` with ArviZ 0.x, `xarray.DataTree` with ArviZ 1.x.

    Shape:
        sites `(chain=1, draw=K, *plates, datum=N, *event)`; statistics `(1, K, N)`; observed_data `(N, *event)`.
    """
    check_pair(model, guide)
    at_least_one(num=num, chunk=chunk)
    batch = placed(model, batch)
    num_data, rows = len(batch[0]), max(1, chunk // num)
    with estimating(model, guide, seed=seed):
        blocks = [
            _groups(model, guide, [b[i : i + rows] if isinstance(b, Tensor) else b for b in batch], num, dims or {})
            for i in range(0, num_data, rows)
        ]
    groups = _joined(blocks)
    _known("dims of sites", dims or {}, [*groups["posterior"], *groups["observed_data"]])
    used = [d for arrays in groups.values() for names, _ in arrays.values() for d in names]
    _known("coords of dims", coords or {}, used)
    return _opened(datatree(groups, {DATUM: range(num_data), **(coords or {})}))


def _known(what: str, given: Iterable[str], names: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ValueError(f"to_arviz: expected {what} among {sorted(set(names))}, got {unknown}.")


def datatree(groups: Groups, coords: Mapping[str, Sequence]) -> xarray.DataTree:
    """An `xarray.DataTree` of named arrays; knows nothing of torch or Pyro."""
    import xarray

    datasets = {}
    for group, arrays in groups.items():
        used = {d for names, _ in arrays.values() for d in names}
        here = {d: list(values) for d, values in coords.items() if d in used}
        sizes = {
            d: n for names, a in arrays.values() for d, n in zip(names, a.shape, strict=True) if d in ("chain", "draw")
        }
        counts = {d: np.arange(n) for d, n in sizes.items()}
        datasets[group] = xarray.Dataset(arrays, coords={**counts, **here}, attrs=NOTES.get(group, {}))
    return xarray.DataTree.from_dict(datasets)


def _opened(tree: xarray.DataTree) -> Any:
    """The container of the installed ArviZ."""
    import arviz

    legacy: Any = getattr(arviz, "InferenceData", None)
    return legacy.from_datatree(tree) if hasattr(legacy, "from_datatree") else tree


def _groups(model: Callable, guide: Callable, batch: Sequence, num: int, dims: Mapping) -> Groups:
    particles = draw(model, guide, *batch, num=num)
    check_sites(particles.guide_trace, particles.model_trace)
    latent = _sites(particles.guide_trace, particles.values)
    observed = _sites(particles.model_trace, particles.observations)
    draws = ("chain", "draw", DATUM)
    return {
        "posterior": {n: _array(n, s, plate_value(s), dims) for n, s in latent.items()},
        "posterior_predictive": {n: _array(n, s, _predicted(s), dims) for n, s in observed.items()},
        "log_likelihood": {n: (draws, _numpy(particles.log_p[n])[None]) for n in observed},
        "sample_stats": {n: (draws, _numpy(v)[None]) for n, v in _statistics(particles).items()},
        "observed_data": {n: _observation(n, s, dims) for n, s in observed.items()},
    }


def _sites(trace: Any, names: Iterable[str]) -> dict[str, Site]:
    return {name: trace.nodes[name] for name in names}


def _statistics(particles: Particles) -> dict[str, Tensor]:
    return {"lp": particles.log_joint, "log_q": particles.log_guide, "log_weight": particles.log_weight}


def _predicted(site: Site) -> Tensor:
    return plate_value(site, site["fn"].sample())


def _array(name: str, site: Site, value: Tensor, dims: Mapping) -> tuple[tuple[str, ...], np.ndarray]:
    plates = [{PARTICLES: "draw", DATA: DATUM}.get(p, p) for p in plate_names(site)]
    return ("chain", *plates, *_event_dims(name, site, dims)), _numpy(value)[None]


def _observation(name: str, site: Site, dims: Mapping) -> tuple[tuple[str, ...], np.ndarray]:
    plates = [{DATA: DATUM}.get(p, p) for p in plate_names(site) if p != PARTICLES]
    event = _event_dims(name, site, dims)
    value = site["value"]
    return (*plates, *event), _numpy(value.reshape(value.shape[value.dim() - len(plates) - len(event) :]))


def _event_dims(name: str, site: Site, dims: Mapping) -> list[str]:
    given, num = list(dims.get(name, ())), len(site["fn"].event_shape)
    if given and len(given) != num:
        raise ValueError(f"to_arviz: expected {num} names for the event dims of site '{name}', got dims={given}.")
    return given or [f"{name}_dim_{i}" for i in range(num)]


def _joined(blocks: list[Groups]) -> Groups:
    """Blocks of data, one after the other along the datum dim."""

    def join(group: str, name: str) -> tuple[tuple[str, ...], np.ndarray]:
        names = blocks[0][group][name][0]
        return names, np.concatenate([b[group][name][1] for b in blocks], axis=names.index(DATUM))

    return {group: {name: join(group, name) for name in arrays} for group, arrays in blocks[0].items()}


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
