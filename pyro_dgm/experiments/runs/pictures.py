"""The pictures of a run: learning curve, samples, reconstructions."""

from __future__ import annotations

from math import isqrt
from pathlib import Path

from torch import Tensor

from ...inference.drawing.generation import generate, reconstruct
from ...inference.training.history import History
from .figures import image_grid, learning_curve
from .run import Run

NUM_SAMPLES = 64


def draw_pictures(run: Run, seed: int = 0) -> None:
    """Write the pictures of the first seed, and the learning curve."""
    rows = run.history._rows[0]
    if run.experiment.has_likelihood:
        learning_curve(History(rows), run.folder / "learning_curve.png")
    draw_samples(run, NUM_SAMPLES, seed, run.folder / "samples.png")
    if len(run.data.event_shape) > 1 and run.experiment.has_likelihood:
        x, *context = run.test(10)
        means = reconstruct(run.model, run.guide, x, *context, num=20, seed=seed)["x"]
        title = "test data (above) and E[x | z], z ~ q(z | x) (below)"
        path = run.folder / "reconstructions.png"
        image_grid([x, means], run.data.event_shape, path, title)


def draw_samples(run: Run, num: int, seed: int, path: Path) -> Tensor:
    """Draw data from the model of the first seed; of images a picture is written."""
    x = generate(run.model, num, seed=seed)
    if len(run.data.event_shape) > 1:
        width = max(1, isqrt(num))
        rows = list(x[: width * (num // width)].split(width))
        image_grid(rows, run.data.event_shape, path, "x ~ p(x | z), z ~ p(z)")
    return x
