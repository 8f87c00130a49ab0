"""The pictures of a run: learning curve, samples, reconstructions."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from ...inference.drawing.generation import reconstruct
from ..plots.canvas import save_picture
from ..plots.curves import critic, learning_curve
from ..plots.images import reconstructions, samples
from .drawing import draws_of, rows_for
from .run import Run

NUM_SAMPLES = 64


def draw_pictures(run: Run, seed: int = 0) -> None:
    """Write the curves of all seeds, and the pictures of the first."""
    curves = learning_curve if run.experiment.has_likelihood else critic
    save_picture(curves(run.history), run.folder / "learning_curve.png")
    draw_samples(run, NUM_SAMPLES, seed, run.folder / "samples.png")
    if len(run.data.event_shape) > 1 and run.experiment.has_likelihood:
        with suppress(NotImplementedError):  # a likelihood without a mean, such as a flow
            draw_reconstructions(run, seed, run.folder / "reconstructions.png")


def draw_reconstructions(run: Run, seed: int, path: Path) -> None:
    """Write a picture of test data and of their means under the model of the first seed.

    Raises:
        NotImplementedError: for a likelihood without a mean.
    """
    x, *context = run.test(10)
    means = reconstruct(run.model, run.guide, x, *context, num=20, seed=seed)["x"]
    save_picture(reconstructions(x, means, run.data.event_shape, run.data.levels), path)


def draw_samples(run: Run, num: int, seed: int, path: Path) -> Tensor:
    """Draw data from the model of the first seed, and write a picture of them."""
    x = draws_of(run, num, rows_for(run.data, num)[1:], seed)
    columns = run.data.names
    save_picture(samples(x, run.data.event_shape, run.data.levels, columns=columns), path)
    return x
