"""The latent space: where the guide puts the data, and what the KL is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...evaluation.latents.elbo_surgery import Surgery
from .canvas import BLUE, COLOURS, GREY, INK, MARKERS, axes_or_new, set_title
from .vectors import draw_vectors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = len(COLOURS) * 3  # by colour and marker
# What the KL is made of, see `Surgery`: the first is the sum of the next two, and so on.
TERMS = {
    "kl": "KL(q | p)",
    "mutual_information": "mutual information",
    "marginal_kl": "marginal KL",
    "total_correlation": "total correlation",
    "dimension_kl": "dimension-wise KL",
}


def latent(z: Tensor, labels: Tensor | None = None, ax: Axes | None = None) -> Axes:
    r"""Draws or means of $q(z \mid x)$ as points: one or two dims as they are, more by their principal components.

    Args:
        z: `(N, D)`, or draws `(K, N, D)` as `encode` returns them, of which all are shown.
        labels: a class of each datum `(N,)`, told apart by colour and marker; real numbers, or more than 21 classes,
            by a scale of colours.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for z of another shape, or other numbers of labels.

    Example:
        >>> latent(torch.randn(50, 2)).get_xlabel()
        'z, dim 0'
    """
    points, num_draws = _to_points(z)
    given = None if labels is None else _to_labels(labels, len(points), num_draws)
    if points.shape[1] == 1:
        ax = draw_vectors(_classes(points, given), ax, "draws of q(z | x)")
        ax.set_xlabel("z, dim 0")
        return ax
    points, names, title = _plane(points)
    ax = axes_or_new(ax, 4.8, 4.4)
    _scatter(ax, points.numpy(), given)
    ax.set(xlabel=names[0], ylabel=names[1])
    set_title(ax, title)
    return ax


def _to_points(z: Tensor) -> tuple[Tensor, int]:
    """Points `(K N, D)`, float64 on the host, and K."""
    z = torch.as_tensor(z).detach().cpu().double()
    if z.ndim not in (2, 3) or z.numel() == 0:
        raise ValueError(
            f"z: expected (N, D) or draws (K, N, D), got {tuple(z.shape)}. "
            "Fix: dgm.encode(guide, x)['z']."
        )
    return z.flatten(0, -2), len(z) if z.ndim == 3 else 1


def _to_labels(labels: Tensor, num_points: int, num_draws: int) -> np.ndarray:
    found = torch.as_tensor(labels).detach().cpu().flatten()
    if len(found) * num_draws != num_points:
        raise ValueError(
            f"labels: expected one for each of the {num_points // num_draws} data, got "
            f"{len(found)}. Fix: labels[:{num_points // num_draws}]."
        )
    return found.repeat(num_draws).numpy()


def _classes(points: Tensor, labels: np.ndarray | None) -> dict[str, Tensor]:
    """Name of each class → its points; all together where labels are no few classes."""
    if labels is None or not _are_classes(labels):
        return {"z": points}
    return {str(name): points[torch.from_numpy(labels == name)] for name in np.unique(labels)}


def _are_classes(labels: np.ndarray) -> bool:
    is_real = np.issubdtype(labels.dtype, np.floating)
    return not is_real and len(np.unique(labels)) <= MOST_CLASSES


def _plane(points: Tensor) -> tuple[Tensor, tuple[str, str], str]:
    """Two coordinates, their names, and the title."""
    if points.shape[1] == 2:
        return points, ("z, dim 0", "z, dim 1"), "draws of q(z | x)"
    centred = points - points.mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    shares = (sizes.square() / sizes.square().sum().clamp(min=1e-300)).tolist()
    names = (f"component 1 ({shares[0]:.0%} of variance)", f"component 2 ({shares[1]:.0%})")
    title = f"draws of q(z | x), 2 principal components of {points.shape[1]} dims"
    return centred @ directions[:2].T, names, title


def _scatter(ax: Axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    x, y = points.T
    size: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": 0.7}
    if labels is None:
        ax.scatter(x, y, color=BLUE, **size)
        return
    if not _are_classes(labels):
        shades = ax.scatter(x, y, c=labels, cmap="cividis", **size)
        ax.figure.colorbar(shades, ax=ax, label="label")
        return
    for number, name in enumerate(np.unique(labels)):
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number // len(COLOURS)],
        }
        mine = labels == name
        ax.scatter(x[mine], y[mine], label=str(name), **style, **size)
    ax.legend(
        frameon=False,
        fontsize=8,
        markerscale=1.8,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        handletextpad=0.1,
    )


def surgery(result: Surgery, ax: Axes | None = None) -> Axes:
    r"""The terms of the KL as bars with their standard errors, in nats per datum; ELBO and reconstruction in the title.

    $KL = I_q[x, z] + KL(q_{agg} \| p)$, and the second of them is the total correlation and the dimension-wise KL. The
    dashed line is $\log N$, beyond which no mutual information goes.

    Args:
        result: of `dgm.surgery`.
        ax: where to draw; default: a new figure.
    """
    table = result.columns()
    numbers = zip(table["value"], table["stderr"], strict=True)
    found = dict(zip(table["term"], numbers, strict=True))
    ax = axes_or_new(ax, 5.2, 2.9)
    shown = [term for term in TERMS if np.isfinite(found[term][0])]
    for place, term in enumerate(shown):
        value, stderr = found[term]
        _bar(ax, place, value, stderr, INK if term == "kl" else BLUE)
    values = [found[term][0] for term in shown]
    ax.set_xlim(min(0.0, *values), 1.35 * max(*values, 1e-3))
    if result.ceiling < ax.get_xlim()[1]:
        ax.axvline(result.ceiling, color=GREY, linestyle="--", linewidth=1)
        ax.text(result.ceiling, 0.5, " log N", fontsize=8, color=INK, va="center")
    ax.set_yticks(range(len(shown)), [TERMS[term] for term in shown])
    ax.invert_yaxis()
    ax.set_xlabel("nats per datum ± standard error")
    elbo, reconstruction = found["elbo"][0], found["reconstruction"][0]
    title = f"ELBO {elbo:.2f} = reconstruction {reconstruction:.2f} − KL"
    set_title(ax, title.replace("-", "−"))
    return ax


def _bar(ax: Axes, place: int, value: float, stderr: float, colour: str) -> None:
    """One term as a bar with its standard error, and both as text beside it."""
    ax.barh(place, value, xerr=stderr, color=colour, height=0.65, ecolor=GREY, capsize=3)
    text = f" {value:.2f} ± {stderr:.2f}"
    ax.text(max(value, 0) + stderr, place, text, va="center", fontsize=8, color=INK)
