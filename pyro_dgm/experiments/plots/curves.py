"""What was measured over the epochs: −ELBO of all seeds, and the terms of a game."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...display.tabular import Tabular
from .canvas import COLOURS, DASHES, axes_or_new, set_title
from .seeds import SeedCurves, seed_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NELBO = {"train_nelbo": "train", "val_nelbo": "validation"}
OF_BOUND = ("train_loss", "train_nelbo", "train_rec[", "train_kl[")  # terms of no game


def learning_curve(
    history: Tabular, metrics: Mapping[str, str] = NELBO, ax: Axes | None = None
) -> Axes:
    """−ELBO over the epochs: every seed as a thin line, their mean ± sd as a band, the best epochs as dots.

    The scale is that of the epochs after the first tenth, which would hide the rest; below the axis it says how many
    epochs lie above it.

    Args:
        history: a `History`, or a `SeedHistory` of several seeds.
        metrics: column of the history → its name in the legend, in nats per datum; the best epochs are those of the
            last one that was measured.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: if no epoch has one of the metrics.

    Example:
        >>> from pyro_dgm.results import History
        >>> rows = [{"epoch": i, "train_nelbo": 1 / i} for i in range(1, 9)]
        >>> learning_curve(History(rows)).get_ylabel()
        '−ELBO, nats per datum'
    """
    curves = _measured(history, metrics)
    if not curves:
        raise ValueError(
            f"learning_curve: expected a history with one of {list(metrics)}, got "
            f"{list(history.columns())}. Fix: dgm.plots.critic(history), for a game; or "
            "metrics={'train_loss': 'train'}."
        )
    ax = axes_or_new(ax)
    _draw(ax, curves)
    for epoch, value in list(curves.values())[-1].best:
        ax.plot(epoch, value, "o", color=_last_colour(curves), markersize=5, markeredgecolor="w")
    ax.set_ylabel("−ELBO, nats per datum")
    first = next(iter(curves.values()))
    dots = "; dots: best epochs" if len(first.seeds) > 1 else "; dot: best epoch"
    set_title(ax, _title("Learning curve", first, dots))
    return ax


def critic(history: Tabular, ax: Axes | None = None) -> Axes:
    """The terms of a game over the epochs: losses of critic and generator, and penalties, per datum.

    Args:
        history: of a `GANTrainer`; a `SeedHistory` shows mean ± sd between seeds.
        ax: where to draw; default: a new figure.

    Raises:
        ValueError: for a history without a critic.
    """
    names = [name for name in history.columns() if name.startswith("train_")]
    terms = [name for name in names if not name.startswith(OF_BOUND)]
    if "train_critic" not in terms:
        raise ValueError(
            f"critic: expected the history of a GANTrainer, got {list(history.columns())}. "
            "Fix: dgm.plots.learning_curve(history)."
        )
    metrics = {name: name.removeprefix("train_") for name in terms}
    curves = _measured(history, metrics)
    ax = axes_or_new(ax)
    _draw(ax, curves)
    ax.set_ylabel("loss of the game, mean over data")
    set_title(ax, _title("Terms of the game", next(iter(curves.values())), ""))
    return ax


def _measured(history: Tabular, metrics: Mapping[str, str]) -> dict[str, SeedCurves]:
    """Label → curves, of the metrics that some epoch has."""
    found = {}
    for name, label in metrics.items():
        curves = seed_curves(history, name)
        if curves is not None:
            found[label] = curves
    return found


def _draw(ax: Axes, curves: Mapping[str, SeedCurves]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        dash = DASHES[number % len(DASHES)]
        if len(curve.seeds) > 1:
            for own in curve.values:
                ax.plot(curve.epochs, own, color=colour, linewidth=0.6, alpha=0.45)
            ax.fill_between(curve.epochs, *curve.band, color=colour, alpha=0.18, linewidth=0)
        marker = "." if len(curve.epochs) == 1 else ""
        style: dict[str, Any] = {"color": colour, "linestyle": dash, "marker": marker}
        ax.plot(curve.epochs, curve.mean, label=label, linewidth=1.6, **style)
    settled = np.concatenate([curve.settled for curve in curves.values()])
    margin = 0.06 * float(np.ptp(settled)) or 1e-3
    ax.set_ylim(settled.min() - margin, settled.max() + margin)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    above = max(int((curve.mean > ax.get_ylim()[1]).sum()) for curve in curves.values())
    ax.set_xlabel("epoch" if above == 0 else f"epoch ({above} above the scale)")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=9)


def _title(what: str, curve: SeedCurves, more: str) -> str:
    num = len(curve.seeds)
    seeds = f", {num} seeds, mean ± sd" if num > 1 else ""
    return f"{what}{seeds}{more}"


def _last_colour(curves: Mapping[str, SeedCurves]) -> str:
    return COLOURS[(len(curves) - 1) % len(COLOURS)]
