"""Draw data from the model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from torch import Tensor

from ...display.progress import bars
from ...files.writing import write_file
from ...inference.run.sessions import require_positive
from ..runs.pictures import draw_samples
from ..runs.processes import find_device
from ..runs.run import Run, load_run


def sample(
    run: str | Path | Run,
    *,
    num: int = 64,
    seed: int = 0,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = True,
) -> Tensor:
    """Draw data from the model of a run's first seed: `samples.npy`, and of images `sample.png`, in its directory.

    Args:
        run: a run directory, or what `dgm.load_run` read.
        num: how many data.
        seed: of the draws.
        device: default: the GPU if there is one.
        trust: modules of your own that its configuration names.
        progress: whether to show bars.

    Returns:
        The data `(num, D)`.
    """
    require_positive(num=num)
    if not isinstance(run, Run):
        run = load_run(run, trust, find_device(device))
    with bars(shown=progress):
        x = draw_samples(run, num, seed, run.folder / "sample.png")
    buffer = BytesIO()
    np.save(buffer, x.cpu().numpy())
    write_file(run.folder / "samples.npy", buffer.getbuffer())
    return x
