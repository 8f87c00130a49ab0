r"""A program with one latent site clamped: the mean of its observation at given points, $E[x \mid z]$."""

from __future__ import annotations

from typing import Any

from pyro import poutine
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from ...contract import DATA, PyroProgram, Site
from ...inference.data.tensors import repeat_rows
from ...inference.drawing.observation import mean_of, observation_of
from ...inference.drawing.simulation import run_without_data
from ...inference.process.states import fork_rng
from ...inference.run.traces import (
    latent_sites,
    plate_depth,
    plate_names,
    plate_value,
    sites_of,
    vectorized,
)
from ...inference.sites.supports import innermost
from ...inference.vectorization.modes import adopt_generator
from ..chains.charts import Chart, chart_of


class ClampedProgram:
    """A program whose latent site has S given values: as data under a context, as particles without one.

    Args:
        model: a Pyro program that generates when its first argument is `None`.
        context: its further arguments, one row for each value.
        latent: name of the site that is clamped.

    Raises:
        ValueError: if the program has no such site inside the data plate alone, or does not run on `None`.
    """

    def __init__(self, model: PyroProgram, context: tuple[Any, ...], latent: str):
        self.model = model
        self.context = context
        self.latent = latent
        self.has_rows = any(isinstance(c, Tensor) and c.dim() > 0 for c in context)
        trace = run_without_data(model, context, fix="x=None in the model, `with data_plate(x):`")
        self.depth = plate_depth(trace)
        self.distribution = _latent_site(trace, latent)["fn"]
        self.on_particles = adopt_generator(model, context)

    def coordinates(self, z: Tensor, *, whiten: bool) -> Tensor:
        r"""$\zeta$ `(S, D)` of points `(S, *event)`."""
        self._check_points(z)
        self._check_continuous()
        return self._chart(whiten=whiten).of(z).reshape(len(z), -1)

    def mean_along(self, zeta: Tensor, *, whiten: bool) -> Tensor:
        """The mean of the observation at coordinates `(*lines, S, D)`: `(*lines, S, *event of x)`."""
        chart = self._chart(whiten=whiten)
        lines = zeta.shape[:-2]
        free_event = chart.shape[len(self.distribution.batch_shape) :]
        free = zeta.reshape(*zeta.shape[:-1], *free_event)
        z, *_ = chart.at(free, len(lines) + 1)
        # Every point of every line is a datum, with the context of the point where its line starts.
        context = tuple(repeat_rows(c, lines.numel()) for c in self.context)
        clamped = ClampedProgram(self.model, context, self.latent)
        mean = clamped.mean(z.flatten(0, len(lines)))
        return mean.reshape(*lines, -1, *mean.shape[1:])

    def mean(self, z: Tensor, site: str | None = None, num: int = 1) -> Tensor:
        """The mean of the observation at points `(S, *event)`, over `num` draws of the other latents."""
        self._check_points(z)
        value = self._with_plates(z, num)
        program = poutine.condition(self.on_particles, data={self.latent: value})
        num_particles = num if self.has_rows else num * len(z)
        run = vectorized(program, num_particles, self.depth)
        trace = poutine.trace(run).get_trace(None, *self.context)
        mean = _observation_mean(self._observation(trace, site))
        return mean.reshape(num, len(z), *mean.shape[2:]).mean(0)

    def _observation(self, trace: Trace, name: str | None) -> Site:
        """A site by name, or the one that observes the model's data."""
        sites = sites_of(trace)
        if name is None:
            name = self._observed()
        if name not in sites:
            raise ValueError(
                f"site: expected the name of an observation among {list(sites)}, got {name!r}. "
                "Fix: site='x'."
            )
        return sites[name]

    def _observed(self) -> str | None:
        """The site that observes data, told by runs of the model as it is, with a noise of their own."""
        with fork_rng(*self.context):
            particles = vectorized(self.model, 8, self.depth)
            trace = poutine.trace(particles).get_trace(None, *self.context)
            return observation_of(self.model, trace, self.context)

    def _with_plates(self, z: Tensor, num: int) -> Tensor:
        """The points with the dims of particles and plates that the latent site has in a run."""
        event = z.shape[1:]
        other_plates = [1] * (self.depth - 1)
        if self.has_rows:
            return z.reshape(1, *other_plates, -1, *event)
        return repeat_rows(z, num).reshape(-1, *other_plates, 1, *event)

    def _chart(self, *, whiten: bool) -> Chart:
        return chart_of(self.latent, self.distribution, whiten=whiten)

    def _check_continuous(self) -> None:
        """Refuse to move along a discrete latent, between whose states nothing lies."""
        support = self.distribution.support
        if support is not None and support.is_discrete:
            family = type(innermost(self.distribution)).__name__
            raise ValueError(
                f"site '{self.latent}': expected a continuous latent to move along, got a discrete "
                f"one, {family}. Fix: decode(model, z), with z the states that you want to see."
            )

    def _check_points(self, z: Tensor) -> None:
        event = tuple(self.distribution.event_shape)
        if tuple(z.shape[1:]) != event:
            shape = ", ".join(["S", *map(str, event)])
            raise ValueError(
                f"site '{self.latent}': expected points of shape ({shape}), got {tuple(z.shape)}. "
                f"Fix: encode(guide, x)['{self.latent}'].mean(0)."
            )


def _latent_site(trace: Trace, name: str) -> Site:
    """The site to clamp: one inside the data plate alone."""
    sites = {}
    for site_name, site in latent_sites(trace).items():
        if plate_names(site) == [DATA]:
            sites[site_name] = site
    if name not in sites:
        raise ValueError(
            f"latent: expected a site inside the plate '{DATA}' alone, one of {list(sites)}, "
            f"got '{name}'. Fix: latent='{next(iter(sites), 'z')}'."
        )
    return sites[name]


def _observation_mean(observation: Site) -> Tensor:
    """The mean of a site, `(particles, data, *further plates, *event)`."""
    mean = mean_of(observation["name"], observation["fn"])
    mean = plate_value(observation, mean)
    data_dim = plate_names(observation).index(DATA)
    return mean.movedim(data_dim, 1)
