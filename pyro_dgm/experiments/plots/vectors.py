"""Data that are no images: a histogram of numbers, points of a plane, rows of a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .canvas import COLOURS, MARKERS, axes_or_new, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 64  # of a heat map
MOST_NAMES = 16  # of columns, below a heat map
MOST_BARS = 100  # of whole numbers


def draw_vectors(
    named: Mapping[str, Tensor],
    ax: Axes | None,
    title: str | None = None,
    *,
    labels: Sequence[str] = (),
    columns: Sequence[str] = (),
    joined: bool = False,
) -> Axes:
    """Groups of data `(N, D)`: D = 1 as histograms, D = 2 as points, more as rows of a heat map.

    Args:
        named: name → data.
        ax: where to draw; default: a new figure.
        title: default: the names.
        labels: one for each row, all groups together.
        columns: names of the D numbers.
        joined: whether the points of a group are a path.
    """
    dim = next(iter(named.values())).shape[1]
    title = ", ".join(named) if title is None else title
    if dim == 1:
        ax = _histograms(named, axes_or_new(ax))
        ax.set_xlabel(columns[0] if columns else "x")
    elif dim == 2:
        ax = _points(named, axes_or_new(ax, 4.6, 4.4), labels, joined=joined)
        horizontal, vertical = columns or ["x, dim 0", "x, dim 1"]
        ax.set(xlabel=horizontal, ylabel=vertical)
    else:
        share = max(1, MOST_ROWS // len(named))
        if any(len(rows) > share for rows in named.values()):
            title = f"{title}; the first {share} shown"
        shown = {name: rows[:share] for name, rows in named.items()}
        ax = _groups(shown, axes_or_new(ax), columns)
        _name_rows(ax, shown, labels[:share])
    set_title(ax, title)
    return ax


def _histograms(named: Mapping[str, Tensor], ax: Axes) -> Axes:
    for number, (name, rows) in enumerate(named.items()):
        colour = COLOURS[number % len(COLOURS)]
        values = rows[rows.isfinite()].numpy()
        bins = _bins(values)
        ax.hist(values, bins=bins, density=True, color=colour, alpha=0.6, label=name)
        ax.set_ylabel("density" if isinstance(bins, int) else "share")
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
    ax.set_aspect("equal")
    _add_legend(ax, named)
    return ax


def _add_legend(ax: Axes, named: Mapping[str, Tensor]) -> None:
    if len(named) > 1:
        ax.legend(frameon=False, fontsize=8)


def _bins(values: np.ndarray) -> int | list[float]:
    """A bar for each whole number where there are no others and few of them, else 40 of equal width."""
    if not len(values) or np.ptp(values) >= MOST_BARS or (values != values.round()).any():
        return 40
    return np.arange(values.min() - 0.5, values.max() + 1).tolist()


def _groups(named: Mapping[str, Tensor], ax: Axes, columns: Sequence[str]) -> Axes:
    """The groups below each other, with a line between them."""
    values = torch.cat(list(named.values()))
    has_names = 0 < len(columns) <= MOST_NAMES
    ax = _table(values, columns, ax) if has_names else _heat_map(values, ax)
    for end in np.cumsum([len(rows) for rows in named.values()])[:-1]:
        ax.axhline(end - 0.5, color="white", linewidth=2)
    return ax


def _heat_map(values: Tensor, ax: Axes) -> Axes:
    """All numbers on one scale."""
    from matplotlib.ticker import MaxNLocator

    image = ax.imshow(values.numpy(), aspect="auto", cmap="cividis", interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9)
    bar.ax.tick_params(labelsize=8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("dim of x")
    return ax


def _table(values: Tensor, columns: Sequence[str], ax: Axes) -> Axes:
    """Each column on a scale of its own, from its least to its largest number, which stand below it."""
    array = values.double().numpy()
    low, high = np.nanmin(array, 0), np.nanmax(array, 0)
    shades = (array - low) / np.where(high > low, high - low, 1.0)
    ax.imshow(shades, aspect="auto", cmap="cividis", interpolation="nearest", vmin=0, vmax=1)
    ends = [f"{name}\n{a:.3g} to {b:.3g}" for name, a, b in zip(columns, low, high, strict=True)]
    tilt: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(columns) > 6 else {}
    ax.set_xticks(range(len(columns)), ends, fontsize=8, **tilt)
    return ax


def _name_rows(ax: Axes, named: Mapping[str, Tensor], labels: Sequence[str]) -> None:
    """At the left the label of each row, else the name of each group in its middle."""
    if labels:
        ax.set_yticks(range(len(labels)), labels)
    elif len(named) > 1:
        lengths = np.array([len(rows) for rows in named.values()])
        ax.set_yticks(np.cumsum(lengths) - lengths / 2 - 0.5, list(named))
    else:
        ax.set_ylabel("datum")
