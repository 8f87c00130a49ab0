"""Data beside what a model makes of them: samples, reconstructions, traversals, and the data it knows least."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ...evaluation.likelihood.results import PerDatum
from .canvas import INK, axes_or_new, set_title
from .tiles import FRAME, Pixels, is_image, limits_of, tile, to_pixels, to_rows
from .vectors import draw_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 10


def samples(
    x: Tensor,
    event_shape: tuple[int, ...],
    levels: int | None = None,
    ax: Axes | None = None,
    *,
    columns: Sequence[str] = (),
) -> Axes:
    """Data or draws of a model: images as a grid, pairs of numbers as points, other vectors as rows of a heat map.

    Args:
        x: `(N, D)` or `(N, *event_shape)`.
        event_shape: `(height, width)` or `(channels, height, width)` of images, grey or colour; else `(D,)`.
        levels: number L of levels of the data, of which 0 is black and L − 1 white. Without it these are 0 and 1 for
            numbers in [0, 1], and else the smallest and the largest number.
        ax: where to draw; default: a new figure.
        columns: names of the D numbers of a vector, of which each then has a scale of its own.

    Raises:
        ValueError: for data of another size, or images of 2 or more than 3 channels.

    Example:
        >>> samples(torch.rand(12, 64), (8, 8)).get_title(loc="left")
        '12 draws'
    """
    rows = to_rows(x, event_shape)
    title = f"{len(rows)} draws"
    if not is_image(event_shape):
        return draw_vectors({title: rows}, ax, columns=columns)
    pixels = to_pixels(rows, event_shape, limits_of(rows, levels))
    num_columns = _columns_of(len(rows))
    return _show(tile(pixels, num_columns), title, ax)


def reconstructions(
    x: Tensor,
    means: Tensor,
    event_shape: tuple[int, ...],
    levels: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Data, and below each $E[x' \mid z]$, $z \sim q(z \mid x)$, see `reconstruct`; all on one scale.

    Args:
        x: `(N, D)` or `(N, *event_shape)`.
        means: as many.
        event_shape: as in `samples`.
        levels: as in `samples`.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for data of another size, or other numbers of them.
    """
    rows, others = to_rows(x, event_shape), to_rows(means, event_shape, "means")
    if len(rows) != len(others):
        raise ValueError(
            f"means: expected one for each of the {len(rows)} data, got {len(others)}. "
            "Fix: dgm.reconstruct(model, guide, x)['x']."
        )
    if not is_image(event_shape):
        return draw_vectors({"data": rows, "E[x | z]": others}, ax)
    limits = limits_of(torch.cat([rows, others]), levels)
    num_columns = min(COLUMNS, len(rows))
    strips = []
    for above, below in zip(rows.split(num_columns), others.split(num_columns), strict=True):
        strips += [_padded(above, num_columns), _padded(below, num_columns)]
    pixels = to_pixels(torch.cat(strips), event_shape, limits)
    return _show(tile(pixels, num_columns), "data, and E[x | z] below each", ax)


def traversal(
    images: Tensor,
    event_shape: tuple[int, ...],
    levels: int | None = None,
    dims: Sequence[int] | None = None,
    span: float = 3.0,
    ax: Axes | None = None,
) -> Axes:
    r"""$E[x \mid z]$ as one coordinate of z after the other goes from −span to span: a row for each coordinate.

    Args:
        images: what `traverse` returns, `(dims, steps, S, *event)`; the first of the S starting points is shown.
        event_shape: as in `samples`.
        levels: as in `samples`.
        dims: of the traversal, as names of the rows; default: from 0 on.
        span: of the traversal, for the title.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for another number of dims, or data of another size.
    """
    if images.ndim < 4:
        raise ValueError(
            "images: expected (dims, steps, S, *event) of a traversal, got "
            f"{tuple(images.shape)}. Fix: dgm.traverse(model, z)."
        )
    num_dims, num_steps = images.shape[:2]
    names = [str(dim) for dim in (range(num_dims) if dims is None else dims)]
    rows = to_rows(images[:, :, 0].flatten(0, 1), event_shape, "images")
    title = f"E[x | z], one dim of z a row, from −{span:g} to {span:g}"
    if not is_image(event_shape):
        lines = rows.split(num_steps)
        named = {f"dim {dim}": line for dim, line in zip(names, lines, strict=True)}
        return draw_vectors(named, ax, title, joined=True)
    pixels = to_pixels(rows, event_shape, limits_of(rows, levels))
    ax = _show(tile(pixels, num_steps), title, ax)
    height = event_shape[-2] + 2 * FRAME
    ax.axis("on")
    ax.spines[:].set_visible(False)
    middles = [height * (row + 0.5) - 0.5 for row in range(num_dims)]
    ax.set_yticks(middles, names)
    ax.set(xticks=[], ylabel="dim of z")
    ax.tick_params(length=0)
    return ax


def worst(
    nll: PerDatum,
    x: Tensor,
    event_shape: tuple[int, ...],
    levels: int | None = None,
    num: int = 10,
    ax: Axes | None = None,
) -> Axes:
    r"""The data with the largest $-\log p(x_i)$, the worst first, with their nats and their rows in `x`.

    Args:
        nll: of `nll` or `ais`, one number per datum.
        x: the data that it is of, in the same order.
        event_shape: as in `samples`.
        levels: as in `samples`.
        num: how many.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for data of another size, or other numbers of them.
    """
    rows = to_rows(x, event_shape)
    if len(rows) != len(nll.per_datum):
        raise ValueError(
            f"x: expected the {len(nll.per_datum)} data that the nll is of, got {len(rows)}. "
            "Fix: worst(nll(model, guide, x), x, event_shape)."
        )
    nats = nll.per_datum.detach().cpu()
    order = nats.nan_to_num(nan=torch.inf).argsort(descending=True, stable=True)[:num]
    title = "largest −log p(x), nats; row of the datum after #"
    labels = [f"{nats[row]:.0f} #{row}" for row in order.tolist()]
    if not is_image(event_shape):
        return draw_vectors({"worst": rows[order]}, ax, title, labels=labels)
    return _show_named(
        to_pixels(rows[order], event_shape, limits_of(rows, levels)), labels, title, ax
    )


def _show_named(pixels: Pixels, labels: list[str], title: str, ax: Axes | None) -> Axes:
    """Images in rows of five, each with a label above it."""
    num_columns = min(5, len(pixels))
    height, width = pixels.shape[1:3]
    room = max(2, ceil(0.28 * width))  # pixels above each image, for its label
    padding = [(0, 0), (room, 0), (0, 0), *[(0, 0)] * (pixels.ndim - 3)]
    padded = np.pad(pixels, padding, constant_values=1.0)
    picture = tile(padded, num_columns)
    ax = _show(picture, title, ax)
    for place, label in enumerate(labels):
        row, column = divmod(place, num_columns)
        x = (column + 0.5) * (width + 2 * FRAME)
        y = row * (height + room + 2 * FRAME) + room / 2 + FRAME - 0.5
        ax.text(x, y, label, ha="center", va="center", fontsize=8, color=INK)
    return ax


def _columns_of(num: int) -> int:
    """Columns of a grid that is about as wide as high, full where that takes at most ten.

    Example:
        >>> [_columns_of(num) for num in (50, 64, 12, 7, 1000)]
        [10, 8, 4, 7, 10]
    """
    least = min(COLUMNS, ceil(sqrt(num)))
    for columns in range(least, COLUMNS + 1):
        if num % columns == 0:
            return columns
    return least


def _padded(rows: Tensor, num: int) -> Tensor:
    """Rows up to a number, the missing ones NaN, which is shown as frame."""
    return torch.cat([rows, rows.new_full((num - len(rows), rows.shape[1]), torch.nan)])


def _show(picture: Pixels, title: str, ax: Axes | None) -> Axes:
    """A picture of shades from 0, black, to 1, white."""
    height, width = picture.shape[:2]
    inches = 5.2
    ax = axes_or_new(ax, inches, min(inches * height / width, 2.4 * inches) + 0.35)
    ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.axis("off")
    set_title(ax, title)
    return ax
