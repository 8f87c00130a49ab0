r"""Densities of chains with the enumerated sites summed out: $\log p(x, \zeta) = \log \sum_c p(x, \zeta, c)$."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from ...contract import PyroProgram, Site
from ...inference.data.tensors import Batch, repeat_rows
from ...inference.enumeration.layouts import CLOSE, MISFIT, summed_run
from ...inference.enumeration.runs import Sums
from ...inference.run.own_pass import remembering
from ...inference.vectorization.rows import alone
from .charts import Chart, bijection_onto
from .points import Place, Point, Values, Visit, concatenated

ChartOf = Callable[[Site], Chart]


class SummedRows:
    r"""$\log p(x_i, \zeta) = \log \sum_c p(x_i, \zeta, c)$ `(K, N)`: K chains of N data are K N rows of one run.

    Args:
        model: a Pyro program without a site that all data share.
        batch: its arguments.
        depth: number of its plates.
        places: latent site → where it lies among the coordinates.
        chart: the free coordinates of a site.
    """

    def __init__(
        self,
        model: PyroProgram,
        batch: Batch,
        depth: int,
        places: Mapping[str, Place],
        chart: ChartOf,
    ):
        self.model, self.batch, self.depth = alone(model), batch, depth
        self.places, self.chart = places, chart
        self.is_single = False

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(x, \zeta)$ `(K, N)`."""
        return self(zeta).log_joint

    def __call__(self, zeta: Tensor) -> Point:
        """The point of coordinates `(K, N, D)`."""
        if not self.is_single:
            return self._point(zeta)
        points = [self._point(part) for part in zeta.split(1)]
        values = {}
        for name in self.places:
            values[name] = torch.cat([point.values[name] for point in points])
        return concatenated(points, values)

    def _point(self, zeta: Tensor) -> Point:
        """The point of one run of the model."""
        num, rows = zeta.shape[:2]
        values: Values = {}
        log_dets = []

        def value_at(site: Site) -> Tensor:
            part = self._part(zeta, site)
            z, log_det = placed(site, self.chart, part, self.depth)
            of_chains = z.unflatten(self.depth - 1, (num, rows))
            values[site["name"]] = of_chains.movedim(self.depth - 1, 0)
            log_dets.append(log_det.reshape(-1, num, rows).sum(0).double())
            return without_plates(site, z, self.depth)

        repeated = tuple([repeat_rows(value, num) for value in self.batch])
        with Visit(value_at):
            sums = summed_run(self.model, repeated, self.depth)
        return point_of(sums, values, log_dets, lambda log_p: log_p.double().reshape(num, rows))

    def _part(self, zeta: Tensor, site: Site) -> Tensor:
        """One site's coordinates `(*plates, K N, *free event)` among those of all `(K, N, D)`."""
        place = self.places[site["name"]]
        part = zeta[..., place.columns].to(place.site["value"].dtype)
        part = part.reshape(-1, *place.shape)
        return part.movedim(0, self.depth - 1)


def placed(site: Site, chart: ChartOf, part: Tensor, num_batch: int) -> tuple[Tensor, Tensor]:
    r"""$z$ of a site at its coordinates, and $\log|\det \partial z / \partial \zeta|$; it is ready to be scored.

    It scores z from the pass that made it, and its mask is left out.

    Args:
        site: of a run over all values of the sites that are summed over.
        chart: the free coordinates of a site.
        part: its coordinates `(*batch, *free event)`.
        num_batch: number of their batch dims.
    """
    site["mask"] = None
    site["fn"] = remembering(site["fn"])
    return chart(site).value_at(part, num_batch)


def without_plates(site: Site, z: Tensor, depth: int) -> Tensor:
    """A value `(*plates, N, *event)` without the dims of size 1 to the left of the site's own plates."""
    own = [-frame.dim for frame in site["cond_indep_stack"] if frame.vectorized]
    further = depth - max(own)
    return z[(0,) * further] if further else z  # itself, which its transforms know


def point_of(
    sums: Sums, values: Values, log_dets: list[Tensor], total: Callable[[Tensor], Tensor]
) -> Point:
    r"""$\log p(\zeta) = \log p(z) + \log|\det \partial z / \partial \zeta|$ and $\log p(x \mid z)$, of a summed run.

    Args:
        sums: of the run.
        values: latent site → z.
        log_dets: of all latent sites.
        total: makes the density of a chain and datum of an entry of `sums`.
    """
    log_prior = list(log_dets)
    log_likelihood: list[Tensor] = []
    for entry, log_p in chain(sums.log_p.items(), sums.shared_p.items()):
        names = sums.groups.get(entry, (entry,))
        shares = log_prior if values.keys() >= set(names) else log_likelihood
        shares.append(total(log_p))
    return Point(
        values,
        log_prior=torch.stack(log_prior).sum(0),
        log_likelihood=torch.stack(log_likelihood).sum(0),
        log_det=torch.stack(log_dets).sum(0),
    )


def mixed_sites(model: PyroProgram, batch: Batch, depth: int) -> Set[str]:
    """Names of the latent sites whose distribution is one for each value of a site that is summed over.

    Args:
        model: a Pyro program with sites that are summed over.
        batch: its arguments.
        depth: number of its plates.

    Raises:
        ValueError: for a program that does not take a dim of values, or a support that differs between them.
    """
    found: dict[str, tuple[Distribution, Tensor]] = {}

    def draw(site: Site) -> Tensor:
        distribution = site["fn"]
        num_values = max(0, len(distribution.batch_shape) - depth)
        z = distribution.sample()
        if distribution.batch_shape[:num_values].numel() > 1:
            found[site["name"]] = distribution, z
        return z[(0,) * num_values]

    with Visit(draw):
        summed_run(alone(model), batch, depth)
    for name, (distribution, z) in found.items():
        _require_one_support(name, distribution, z, depth)
    return found.keys()


def _require_one_support(name: str, distribution: Distribution, z: Tensor, depth: int) -> None:
    """Refuse a latent that lies elsewhere for other values of the sites that are summed over; `z` is a draw of it."""
    support = distribution.support
    if support is None or support.is_discrete:  # refused for what it is
        return
    onto = bijection_onto(support)
    at_origin = onto(z.new_zeros(onto.inverse_shape(distribution.event_shape)))
    if at_origin.dim() > depth + len(distribution.event_shape):
        raise ValueError(
            f"site '{name}': expected a support that is the same for all values of the sites that are summed over, "
            f"got another {type(support).__name__} for each. Fix: a latent of a fixed support, as u in "
            "z = low[c] + (high[c] - low[c]) * u."
        )


class SummedDensity(Protocol):
    """A density of coordinates, all chains in one run, or each in a run of its own."""

    is_single: bool

    def log_joint(self, zeta: Tensor) -> Tensor:
        r"""$\log p(x, \zeta)$ of every chain."""


def settle(density: SummedDensity, zeta: Tensor) -> None:
    """Give each chain a run of its own, if several in one run over all summed values fail or mean something else.

    Args:
        density: what is settled.
        zeta: coordinates of a few chains.

    Raises:
        ValueError: for a program that does not run for one chain.
    """
    density.is_single = True
    by_itself = density.log_joint(zeta)
    density.is_single = False
    try:
        found = density.log_joint(zeta)
    except torch.OutOfMemoryError:  # which a smaller chunk mends
        raise
    except MISFIT:
        density.is_single = True
        return
    is_close = torch.allclose(found, by_itself, rtol=CLOSE, atol=CLOSE, equal_nan=True)
    density.is_single = not is_close
