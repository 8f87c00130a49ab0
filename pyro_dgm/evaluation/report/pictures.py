"""The figures of a report: functions from numbers to a matplotlib `Figure`, without a display or pyplot's state."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..posterior.calibration import SBC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1f2933"
BLUE = "#2a6f97"
GREY = "#b8c2cc"
AMBER = "#c05621"
RANK_BINS = 20
RANK_COLUMNS = 4
KHAT_RANGE = (-0.5, 1.5)
MAX_NAMED_UNITS = 24  # more names than that can't be read
MAX_LEVEL_NAMES = 10  # more names than that have no room side by side
CENTRAL_99 = (0.005, 0.995)
TINY = 1e-12


def khat_figure(khat: Tensor, threshold: float) -> Figure:
    """A histogram of k̂ `(N,)`; what lies beyond its ends, infinities too, is counted in the outer bars."""
    low, high = KHAT_RANGE
    finite = khat.nan_to_num(nan=high, posinf=high, neginf=low)
    figure, (axes,) = _figure(6.4, 2.8)
    _percent_histogram(axes, finite.clamp(low, high), bins=40, limits=KHAT_RANGE)
    axes.axvline(threshold, color=AMBER, linewidth=1.5)
    place = (threshold - low) / (high - low)
    axes.set_title(f"threshold {threshold:.2f}", x=place, fontsize=9, color=AMBER)
    axes.set(xlabel="Pareto k̂", ylabel="% of the data", xlim=KHAT_RANGE)
    return figure


def rank_figure(sbc: SBC, which: Sequence[int]) -> Figure:
    """Histograms of the ranks of some statistics, with the central 99 % of each bar's binomial distribution."""
    num_rows = ceil(len(which) / RANK_COLUMNS)
    num_columns = min(RANK_COLUMNS, len(which))
    figure, panels = _figure(7.6, 1.65 * num_rows + 0.3, num_rows, num_columns)
    for axes, index in zip(panels, which, strict=False):
        _show_ranks(axes, sbc.uniform[:, index])
        axes.set_title(sbc.names[index], fontsize=9)
    for empty in panels[len(which) :]:
        empty.axis("off")
    figure.supxlabel("rank / number of draws", fontsize=9)
    figure.supylabel("% of the data", fontsize=9)
    return figure


def _show_ranks(axes: Any, uniform: Tensor) -> None:
    """One histogram of ranks on (0, 1) `(N,)` and its band."""
    low, high = _central_counts(len(uniform), 1 / RANK_BINS)
    low, high = 100 * low / len(uniform), 100 * high / len(uniform)
    axes.axhspan(low, high, color=AMBER, alpha=0.35, linewidth=0, zorder=3)
    _percent_histogram(axes, uniform, bins=RANK_BINS, limits=(0, 1))
    axes.set(xticks=[0, 0.5, 1], xlim=(0, 1))


def _central_counts(num: int, share: float) -> tuple[float, float]:
    """The central 99 % of a binomial distribution: counts of `num` independent data that have a given share."""
    from scipy.special import bdtr

    distribution = bdtr(np.arange(num + 1), num, share)
    low, high = np.searchsorted(distribution, CENTRAL_99)
    return float(low), float(high)


def _percent_histogram(axes: Any, values: Tensor, bins: int, limits: tuple[float, float]) -> None:
    """A histogram whose bars add up to 100."""
    weights = [100 / len(values)] * len(values)
    axes.hist(values.numpy(), bins=bins, range=limits, weights=weights, color=BLUE)


def unit_figure(names: Sequence[str], values: Tensor, idle: Tensor, label: str) -> Figure:
    """One bar for every unit, largest first, idle ones in another colour."""
    order = values.argsort(descending=True).tolist()
    colours = [GREY if idle[unit] else BLUE for unit in order]
    figure, (axes,) = _figure(6.4, 2.6)
    axes.bar(range(len(order)), values[order].tolist(), color=colours, width=0.8)
    axes.set(ylabel=label, xlim=(-0.6, len(order) - 0.4))
    _name_units(axes, [names[unit] for unit in order])
    return figure


def _name_units(axes: Any, names: list[str]) -> None:
    """The names below the bars, where there are few enough to be read."""
    if len(names) > MAX_NAMED_UNITS:
        axes.set(xlabel="units, largest first", xticks=[])
        return
    axes.set(xlabel="unit", xticks=range(len(names)))
    rotation = 90 if len(names) > MAX_LEVEL_NAMES else 0
    axes.set_xticklabels(names, rotation=rotation, fontsize=8)


def bound_figure(per_datum: Tensor, nelbo: Tensor) -> Figure:
    """−ELBO against the importance estimate of −log p(x), with the diagonal, and the histogram of their difference."""
    is_finite = per_datum.isfinite() & nelbo.isfinite()
    x = per_datum[is_finite].numpy()
    y = nelbo[is_finite].numpy()
    figure, (scatter, histogram) = _figure(7.6, 3.2, 1, 2)
    scatter.scatter(x, y, s=6, color=BLUE, alpha=0.5, linewidths=0)
    if len(x):
        scatter.axline((x[0], x[0]), slope=1, color=INK, linewidth=0.8)
    scatter.set(xlabel="−log p(x), nats", ylabel="−ELBO, nats")
    histogram.hist(y - x, bins=30, color=BLUE)
    histogram.set(xlabel="−ELBO + log p(x), nats", ylabel="data")
    return figure


def aggregate_figure(aggregate: Tensor, prior: Tensor) -> Figure:
    """Draws of the aggregated posterior over draws of the prior `(num, D)`, in the two dims that differ most."""
    dims = _dims_that_differ(aggregate, prior)[:2]
    if len(dims) == 1:
        figure, axes = _histograms(aggregate[:, 0], prior[:, 0])
    else:
        figure, axes = _scatter_plots(aggregate, prior, dims)
    axes.legend(
        frameon=False,
        fontsize=9,
        ncols=2,
        markerscale=2.5,
        loc="lower right",
        bbox_to_anchor=(1, 1),
    )
    return figure


def _dims_that_differ(aggregate: Tensor, prior: Tensor) -> list[int]:
    """All dims, first those in which the aggregate is shifted most, in the prior's spread, or scaled most."""
    spread = prior.std(0).clamp(min=TINY)
    shift = (aggregate.mean(0) - prior.mean(0)).abs() / spread
    log_ratio = (aggregate.std(0).clamp(min=TINY) / spread).log()
    order: list[int] = (shift + log_ratio.abs()).argsort(descending=True).tolist()
    return order


def _histograms(aggregate: Tensor, prior: Tensor) -> tuple[Figure, Any]:
    figure, (axes,) = _figure(5.6, 3.0)
    for name, z, colour in (("prior", prior, GREY), ("aggregate", aggregate, BLUE)):
        axes.hist(z.numpy(), bins=40, density=True, color=colour, alpha=0.7, label=name)
    axes.set(xlabel="z", ylabel="density")
    return figure, axes


def _scatter_plots(aggregate: Tensor, prior: Tensor, dims: list[int]) -> tuple[Figure, Any]:
    first, second = dims
    figure, (axes,) = _figure(4.6, 4.4)
    for name, z, colour in (("prior", prior, GREY), ("aggregate", aggregate, BLUE)):
        x, y = z[:, first].numpy(), z[:, second].numpy()
        axes.scatter(x, y, s=7, color=colour, alpha=0.7, linewidths=0, label=name)
    axes.set(xlabel=f"z, dim {first}", ylabel=f"z, dim {second}", aspect="equal")
    return figure, axes


def image_figure(images: Tensor, shape: tuple[int, ...], titles: Sequence[str]) -> Figure:
    """A row of data as grey or colour images; `shape` is `(height, width)` or `(channels, height, width)`."""
    pixels = _unit_scale(images.double()).reshape(len(images), *shape)
    if len(shape) == 3:
        pixels = pixels.movedim(1, -1)
    figure, panels = _figure(0.75 * len(images) + 0.1, 1.15, 1, len(images))
    for axes, image, title in zip(panels, pixels, titles, strict=True):
        axes.imshow(image.numpy(), cmap="gray_r", interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.axis("off")
    return figure


def _unit_scale(values: Tensor) -> Tensor:
    """The values with 0 for their minimum and 1 for their maximum."""
    low = values.min()
    return (values - low) / (values.max() - low).clamp(min=TINY)


def _figure(
    width: float, height: float, num_rows: int = 1, num_columns: int = 1
) -> tuple[Figure, list[Any]]:
    """A figure of that many inches and its axes, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(num_rows, num_columns, squeeze=False).flatten().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure, panels
