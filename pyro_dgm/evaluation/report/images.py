"""Data that are images: which look like some, and in which shape they are shown."""

from __future__ import annotations

from math import isqrt

import torch

SMALLEST_SIDE = 6  # of a square event that is taken for an image


def image_like(event: tuple[int, ...]) -> tuple[int, ...] | None:
    """`(height, width)` of square events of 36 numbers and more, flat or with one channel; else `None`.

    Example:
        >>> image_like((64,)), image_like((1, 28, 28)), image_like((9,)), image_like((4, 8))
        ((8, 8), (28, 28), None, None)
    """
    num = torch.Size(event).numel()
    side = isqrt(num)
    is_square = side >= SMALLEST_SIDE and side * side == num
    if is_square and event[-2:] in ((num,), (side, side)):
        return side, side
    return None


def choose_image_shape(
    event: tuple[int, ...], shape: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The shape in which data are shown: the one that is given, or that of data that look like images.

    Args:
        event: shape of a datum.
        shape: `(height, width)` or `(channels, height, width)`; `None` to look at the event.

    Raises:
        ValueError: for a shape of another size.
    """
    if shape is None:
        return image_like(event)
    num = torch.Size(event).numel()
    if torch.Size(shape).numel() != num or len(shape) not in (2, 3):
        raise ValueError(
            "check: expected image_shape (height, width) or (channels, height, width) of the "
            f"data's {num} numbers, got {shape}. Fix: image_shape=(1, {num})."
        )
    return tuple(shape)
