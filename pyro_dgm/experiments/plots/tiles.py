"""Images as arrays side by side: one picture of many, on one scale."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAME = 1  # pixels around each image
FRAME_SHADE = 0.55  # of white: told apart from black and from white
Pixels = NDArray[np.float64]


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether data of that shape are shown as images: `(height, width)`, or `(channels, height, width)`."""
    return len(event_shape) in (2, 3)


def to_rows(x: Tensor, event_shape: tuple[int, ...], name: str = "x") -> Tensor:
    """Data `(N, …)` as float64 rows `(N, D)` on the host.

    Raises:
        ValueError: for data of another size.
    """
    x = torch.as_tensor(x).detach().cpu().double()
    dim = prod(event_shape)
    if x.ndim < 1 or x.numel() == 0 or x[0].numel() != dim:
        raise ValueError(
            f"{name}: expected data (N, {dim}) of the event shape {tuple(event_shape)}, got "
            f"{tuple(x.shape)}. Fix: event_shape={tuple(x.shape[1:])}."
        )
    return x.reshape(len(x), dim)


def to_pixels(
    rows: Tensor, event_shape: tuple[int, ...], limits: tuple[float, float] | None = None
) -> Pixels:
    """Rows `(N, D)` as grey `(N, height, width)` or colour `(N, height, width, 3)`, 0 black and 1 white.

    Args:
        rows: numbers of one scale.
        event_shape: `(height, width)`, or `(channels, height, width)` with 1 or 3 channels.
        limits: the numbers that are black and white; default: see `limits_of`.

    Raises:
        ValueError: for another number of channels.
    """
    low, high = limits_of(rows) if limits is None else limits
    shades = ((rows - low) / max(high - low, 1e-12)).clamp(0, 1).nan_to_num(FRAME_SHADE)
    pixels = shades.reshape(len(rows), *event_shape).numpy()
    if len(event_shape) == 2:
        return pixels
    channels = event_shape[0]
    if channels not in (1, 3):
        raise ValueError(
            f"event_shape: expected 1 or 3 channels, got {channels} in {event_shape}. "
            f"Fix: x.reshape(-1, {channels}, {prod(event_shape[1:])})[:, 0], one channel at a time."
        )
    return pixels[:, 0] if channels == 1 else np.moveaxis(pixels, 1, -1)


def limits_of(rows: Tensor, levels: int | None = None) -> tuple[float, float]:
    """The numbers that are black and white: 0 and L − 1 of L levels; 0 and 1 if all lie there; else the extremes."""
    if levels is not None:
        return 0.0, float(levels - 1)
    finite = rows[rows.isfinite()]
    if not len(finite):
        return 0.0, 1.0
    low, high = finite.min().item(), finite.max().item()
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (0.0 if low >= 0 else low), high


def tile(pixels: Pixels, num_columns: int) -> Pixels:
    """Images `(N, height, width[, 3])` as one picture, row by row, each in a frame of one pixel; the rest is white."""
    num_rows = -(-len(pixels) // num_columns)
    height, width = pixels.shape[1:3]
    channels = pixels.shape[3:]
    high, wide = height + 2 * FRAME, width + 2 * FRAME
    picture = np.ones((num_rows * high, num_columns * wide, *channels))
    for place, image in enumerate(pixels):
        row, column = divmod(place, num_columns)
        cell = picture[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        cell[:] = FRAME_SHADE
        cell[FRAME:-FRAME, FRAME:-FRAME] = image
    return picture
