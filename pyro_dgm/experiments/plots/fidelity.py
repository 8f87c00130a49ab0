"""Is the guide the posterior: tails of importance weights, and ranks of the truth among draws."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation.likelihood.psis import khat_threshold
from ...evaluation.likelihood.results import NLL
from ...evaluation.posterior.ranks import Ranks
from .canvas import BLUE, COLOURS, DASHES, GREY, INK, ORANGE, axes_or_new, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = (-0.5, 1.5)  # k-hat beyond is drawn at the edge
LEVEL = 0.01  # at which an exact guide leaves the band


def khat(result: NLL, ax: Axes | None = None) -> Axes:
    r"""Pareto $\hat k$ of every datum's importance weights, with the thresholds of what K draws can estimate.

    Above the lower line the figure of that datum has no reliable error; above 1 the weights have no mean. Values beyond
    the picture, infinite ones too, stand at its edge.

    Args:
        result: of `dgm.nll`.
        ax: where to draw; default: a new figure.
    """
    threshold = khat_threshold(result.num)
    values = result.khat.detach().cpu().double().nan_to_num(nan=np.inf).numpy()
    is_bad = values > threshold
    shown = values.clip(*SHOWN)
    place = np.arange(len(values))
    ax = axes_or_new(ax)
    ax.plot(place[~is_bad], shown[~is_bad], "o", color=BLUE, markersize=3, alpha=0.6)
    ax.plot(place[is_bad], shown[is_bad], "^", color=ORANGE, markersize=4)
    for height in (threshold, 1.0):
        ax.axhline(height, color=INK, linewidth=0.9, linestyle="--")
        place_of_text = (1.01, height)
        text = f"{height:.2g}"
        ax.annotate(
            text, place_of_text, xycoords=("axes fraction", "data"), fontsize=8, va="center"
        )
    ax.set(xlabel="datum", ylabel="Pareto k̂", ylim=(SHOWN[0] - 0.05, SHOWN[1] + 0.05))
    set_title(
        ax, f"k̂ above {threshold:.2f}: {is_bad.sum()} of {len(values)} data, {result.num:,} draws"
    )
    return ax


def calibration(result: Ranks, ax: Axes | None = None) -> Axes:
    r"""$F_N(u) - u$ of the ranks of every statistic, with the band that holds them all for an exact guide.

    The band is Kolmogorov's, at a level of 1 % that all statistics share: an exact guide leaves it in at most one of a
    hundred pictures. A curve above 0 at the left and below at the right: the guide is too narrow; above 0 all along:
    the truth lies below the guide's draws. The curves that leave it have a colour and a name.

    Args:
        result: of `dgm.sbc`, `dgm.tarp` or `dgm.diagnostics.vsbc`.
        ax: where to draw; default: a new figure.

    References:
        Säilynoja, Bürkner, Vehtari 2022, *Graphical test for discrete uniformity*, arXiv:2103.10522;
        Stephens 1970, *Use of the Kolmogorov–Smirnov statistics without extensive tables*, JRSS B 32.
    """
    uniform = result.uniform.detach().cpu().double().numpy()
    num, num_statistics = uniform.shape
    width = _band(num, LEVEL / num_statistics)
    ax = axes_or_new(ax)
    ax.axhspan(-width, width, color=GREY, alpha=0.25, linewidth=0)
    num_outside = 0
    for name, ranks in zip(result.names, uniform.T, strict=True):
        grid, difference = _ecdf_difference(np.sort(ranks))
        if np.abs(difference).max() <= width:
            ax.plot(grid, difference, color=GREY, linewidth=0.8)
            continue
        colour = COLOURS[num_outside % len(COLOURS)]
        dash = DASHES[num_outside // len(COLOURS) % len(DASHES)]
        label = name if num_outside < 10 else None  # more names have no room
        ax.plot(grid, difference, color=colour, linestyle=dash, linewidth=1.4, label=label)
        num_outside += 1
    if num_outside:
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(xlabel="rank / number of draws", ylabel="ECDF − uniform", xlim=(0, 1))
    set_title(ax, f"{num_outside} of {num_statistics} statistics leave the 99 % band; {num} data")
    return ax


def _band(num: int, level: float) -> float:
    r"""Half the width of Kolmogorov's band: $\max_u |F_N(u) - u|$ of N uniform numbers exceeds it so often."""
    from scipy.special import kolmogi

    root = sqrt(num)
    return float(kolmogi(level)) / (root + 0.12 + 0.11 / root)


def _ecdf_difference(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places and $F_N(u) - u$ on both sides of every step, `(2 N + 2,)`."""
    num = len(ordered)
    steps = np.arange(num + 1) / num
    grid = np.concatenate([[0.0], np.repeat(ordered, 2), [1.0]])
    return grid, np.repeat(steps, 2) - grid
