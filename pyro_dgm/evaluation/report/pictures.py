"""The figures of a report: functions from numbers to a matplotlib `Figure`, without a display or pyplot's state."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..posterior.calibration import SBC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BLUE, GREY, AMBER = "#1f2933", "#2a6f97", "#b8c2cc", "#c05621"
RANK_BINS = 20
KHAT_RANGE = (-0.5, 1.5)


def khat_figure(khat: Tensor, threshold: float) -> Figure:
    """A histogram of k̂ `(N,)`; what lies beyond its ends, infinities too, is counted in the outer bars."""
    low, high = KHAT_RANGE
    figure, (axes,) = _figure(6.4, 2.8)
    shown = khat.nan_to_num(nan=high, posinf=high, neginf=low).clamp(low, high)
    axes.hist(
        shown.numpy(), bins=40, range=KHAT_RANGE, weights=[100 / len(khat)] * len(khat), color=BLUE
    )
    axes.axvline(threshold, color=AMBER, linewidth=1.5)
    axes.set_title(
        f"threshold {threshold:.2f}", x=(threshold - low) / (high - low), fontsize=9, color=AMBER
    )
    axes.set(xlabel="Pareto k̂", ylabel="% of the data", xlim=KHAT_RANGE)
    return figure


def rank_figure(found: SBC, which: Sequence[int]) -> Figure:
    """Histograms of the ranks of some statistics, with the central 99 % of each bar's binomial law."""
    num, expected = len(found.uniform), 100 / RANK_BINS
    half = 2.576 * (expected * (100 - expected) / num) ** 0.5
    figure, panels = _figure(
        7.6, 1.65 * ceil(len(which) / 4) + 0.3, ceil(len(which) / 4), min(4, len(which))
    )
    for axes, index in zip(panels, which, strict=False):
        axes.axhspan(
            expected - half, expected + half, color=AMBER, alpha=0.35, linewidth=0, zorder=3
        )
        axes.hist(
            found.uniform[:, index].numpy(),
            bins=RANK_BINS,
            range=(0, 1),
            weights=[100 / num] * num,
            color=BLUE,
        )
        axes.set_title(found.names[index], fontsize=9)
        axes.set(xticks=[0, 0.5, 1], xlim=(0, 1))
    for axes in panels[len(which) :]:
        axes.axis("off")
    figure.supxlabel("rank / number of draws", fontsize=9)
    figure.supylabel("% of the data", fontsize=9)
    return figure


def unit_figure(names: Sequence[str], values: Tensor, idle: Tensor, label: str) -> Figure:
    """One bar for every unit, largest first, idle ones in another colour."""
    figure, (axes,) = _figure(6.4, 2.6)
    order = values.argsort(descending=True).tolist()
    axes.bar(
        range(len(order)),
        values[order].tolist(),
        color=[GREY if idle[i] else BLUE for i in order],
        width=0.8,
    )
    axes.set(
        ylabel=label,
        xlabel="unit" if len(order) <= 24 else "units, largest first",
        xlim=(-0.6, len(order) - 0.4),
    )
    axes.set_xticks(range(len(order)) if len(order) <= 24 else [])
    if len(order) <= 24:
        axes.set_xticklabels(
            [names[i] for i in order], rotation=90 if len(order) > 10 else 0, fontsize=8
        )
    return figure


def bound_figure(per_datum: Tensor, nelbo: Tensor) -> Figure:
    """−ELBO against the importance estimate of −log p(x), with the diagonal, and the histogram of their difference."""
    figure, (left, right) = _figure(7.6, 3.2, 1, 2)
    kept = per_datum.isfinite() & nelbo.isfinite()
    x, y = per_datum[kept].numpy(), nelbo[kept].numpy()
    left.scatter(x, y, s=6, color=BLUE, alpha=0.5, linewidths=0)
    if len(x):
        left.axline((x[0], x[0]), slope=1, color=INK, linewidth=0.8)
    left.set(xlabel="−log p(x), nats", ylabel="−ELBO, nats")
    right.hist(y - x, bins=30, color=BLUE)
    right.set(xlabel="−ELBO + log p(x), nats", ylabel="data")
    return figure


def aggregate_figure(aggregate: Tensor, prior: Tensor) -> Figure:
    """Draws of the aggregated posterior over draws of the prior `(num, D)`, in the two dims that differ most."""
    spread = prior.std(0).clamp(min=1e-12)
    shift, ratio = (
        (aggregate.mean(0) - prior.mean(0)).abs() / spread,
        (aggregate.std(0).clamp(min=1e-12) / spread).log(),
    )
    dims = (shift + ratio.abs()).argsort(descending=True)[:2].tolist()
    pairs = ((prior, GREY, "prior"), (aggregate, BLUE, "aggregate"))
    if len(dims) == 1:
        figure, (axes,) = _figure(5.6, 3.0)
        for z, colour, name in pairs:
            axes.hist(z[:, 0].numpy(), bins=40, density=True, color=colour, alpha=0.7, label=name)
        axes.set(xlabel="z", ylabel="density")
    else:
        figure, (axes,) = _figure(4.6, 4.4)
        for z, colour, name in pairs:
            axes.scatter(
                *z[:, dims].T.numpy(), s=7, color=colour, alpha=0.7, linewidths=0, label=name
            )
        axes.set(xlabel=f"z, dim {dims[0]}", ylabel=f"z, dim {dims[1]}", aspect="equal")
    axes.legend(
        frameon=False,
        fontsize=9,
        ncols=2,
        markerscale=2.5,
        loc="lower right",
        bbox_to_anchor=(1, 1),
    )
    return figure


def image_figure(images: Tensor, shape: tuple[int, ...], titles: Sequence[str]) -> Figure:
    """A row of data as grey or colour images; `shape` is `(height, width)` or `(channels, height, width)`."""
    figure, panels = _figure(0.75 * len(images) + 0.1, 1.15, 1, len(images))
    low, high = images.min().item(), images.max().item()
    for axes, image, title in zip(panels, images.double(), titles, strict=True):
        pixels = ((image - low) / max(high - low, 1e-12)).reshape(shape)
        pixels = pixels if pixels.dim() == 2 else pixels.movedim(0, -1)
        axes.imshow(pixels.numpy(), cmap="gray_r", interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.axis("off")
    return figure


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Any]]:
    """A figure and its axes, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure, panels
