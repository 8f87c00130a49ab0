"""Data that are no images: a histogram of numbers, points of a plane, rows of a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .canvas import COLOURS, MARKERS, axes_or_new, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 60  # of a heat map


def draw_vectors(
    named: Mapping[str, Tensor],
    ax: Axes | None,
    title: str | None = None,
    *,
    labels: Sequence[str] = (),
    joined: bool = False,
) -> Axes:
    """Groups of data `(N, D)`: D = 1 as histograms, D = 2 as points, more as rows of a heat map.

    Args:
        named: name → data.
        ax: where to draw; default: a new figure.
        title: default: the names.
        labels: one for each row, all groups together.
        joined: whether the points of a group are a path.
    """
    dim = next(iter(named.values())).shape[1]
    title = ", ".join(named) if title is None else title
    if dim == 1:
        ax = _histograms(named, axes_or_new(ax))
    elif dim == 2:
        ax = _points(named, axes_or_new(ax, 4.6, 4.4), labels, joined=joined)
    else:
        ax = _heat_map(named, axes_or_new(ax), labels)
    set_title(ax, title)
    return ax


def _histograms(named: Mapping[str, Tensor], ax: Axes) -> Axes:
    for number, (name, rows) in enumerate(named.items()):
        colour = COLOURS[number % len(COLOURS)]
        values = rows[rows.isfinite()].numpy()
        ax.hist(values, bins=40, density=True, color=colour, alpha=0.6, label=name)
    ax.set(xlabel="x", ylabel="density")
    _add_legend(ax, named)
    return ax


def _points(named: Mapping[str, Tensor], ax: Axes, labels: Sequence[str], *, joined: bool) -> Axes:
    for number, (name, rows) in enumerate(named.items()):
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linestyle": "-" if joined else "none",
        }
        x, y = rows.T.numpy()
        ax.plot(x, y, markersize=4, markeredgewidth=0, alpha=0.7, label=name, **style)
    points = torch.cat(list(named.values()))
    for label, (x, y) in zip(labels, points.tolist(), strict=False):
        ax.annotate(label, (x, y), fontsize=7, xytext=(3, 3), textcoords="offset points")
    ax.set(xlabel="x, dim 0", ylabel="x, dim 1", aspect="equal")
    _add_legend(ax, named)
    return ax


def _add_legend(ax: Axes, named: Mapping[str, Tensor]) -> None:
    if len(named) > 1:
        ax.legend(frameon=False, fontsize=8)


def _heat_map(named: Mapping[str, Tensor], ax: Axes, labels: Sequence[str]) -> Axes:
    """The groups below each other, with a line between them and their names at the left."""
    share = max(1, MOST_ROWS // len(named))
    groups = [rows[:share] for rows in named.values()]
    values = torch.cat(groups).numpy()
    image = ax.imshow(values, aspect="auto", cmap="cividis", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    start = 0
    ticks = []
    for group in groups:
        ticks.append(start + len(group) / 2 - 0.5)
        start += len(group)
        if start < len(values):
            ax.axhline(start - 0.5, color="white", linewidth=2)
    if labels:
        ax.set_yticks(range(len(labels)), labels)
    elif len(named) > 1:
        ax.set_yticks(ticks, list(named))
    else:
        ax.set_ylabel("datum")
    ax.set_xlabel("dim of x")
    return ax
