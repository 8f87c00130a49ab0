"""Pictures of a run, drawn without a display."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ...files.writing import write_file
from ...inference.training.history import History

LABELS = {"train_nelbo": "train", "val_nelbo": "validation"}


def image_grid(rows: list[Tensor], shape: tuple[int, int], path: Path, title: str) -> None:
    """Draw rows of grey images `(num, D)`, all on one grey scale."""
    brightest = max(float(row.max()) for row in rows)
    strips = []
    for row in rows:
        images = row.reshape(len(row), *shape).cpu().numpy()
        strips.append(_side_by_side(images, frame=brightest / 4))
    picture = np.concatenate(strips)
    height, width = picture.shape
    inches = 8 * height / width + 0.5  # with room for the title
    figure = Figure(figsize=(8, inches), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=brightest, interpolation="nearest")
    axes.set_title(title)
    axes.axis("off")
    _save(figure, path)


def learning_curve(history: History, path: Path) -> None:
    """Draw training and validation −ELBO over the epochs, without the first ones that hide the rest."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    settled: list[float] = []
    for label, nelbo in _curves(history).items():
        axes.plot(history.column("epoch"), nelbo, label=label, linewidth=1.2)
        settled += nelbo[len(history) // 20 :]
    axes.set_ylim(min(settled) - 1, max(settled) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="−ELBO, nats per datum")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _save(figure, path)


def _curves(history: History) -> dict[str, list[float]]:
    """Label → −ELBO over the epochs, for what was measured."""
    return {label: history.column(name) for name, label in LABELS.items() if name in history.names}


def _side_by_side(images: np.ndarray, frame: float) -> np.ndarray:
    """Images `(num, height, width)` as one row, each in a frame of one pixel."""
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=frame)
    return np.concatenate(list(framed), axis=1)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_file(path, buffer.getbuffer())
