"""Pictures of a run, drawn without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..inference.training.history import History


def image_grid(rows: list[Tensor], shape: tuple[int, int], path: Path, title: str) -> None:
    """Draw rows of grey images `(num, D)`, all on one grey scale."""
    images = [row.reshape(len(row), *shape).cpu().numpy() for row in rows]
    top = max(float(row.max()) for row in images)
    tiled = np.concatenate(
        [
            np.concatenate([np.pad(im, 1, constant_values=top / 4) for im in row], 1)
            for row in images
        ]
    )
    height, width = tiled.shape
    figure = Figure(figsize=(8, 8 * height / width + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(tiled, cmap="gray_r", vmin=0, vmax=top, interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")
    _save(figure, path)


def learning_curve(history: History, path: Path) -> None:
    """Draw training and validation −ELBO over the epochs, without the first ones that hide the rest."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = history.column("epoch")
    for name, label in (("train_nelbo", "train"), ("val_nelbo", "validation")):
        if name in history.names:
            axes.plot(epochs, history.column(name), label=label, linewidth=1.2)
    settled = [
        v
        for n in ("train_nelbo", "val_nelbo")
        if n in history.names
        for v in history.column(n)[len(history) // 20 :]
    ]
    axes.set_ylim(min(settled) - 1, max(settled) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="−ELBO, nats per datum")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130)
