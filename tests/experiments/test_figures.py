"""Pictures are drawn without a display and without pyplot's global state."""

import subprocess
import sys

import numpy as np
import pyro.distributions as dist
import torch
from matplotlib.image import imread
from pyro_dgm.experiments.figures import image_grid, learning_curve

import pyro_dgm as dgm
from pyro_dgm.experiments.runs import results_of, table
from pyro_dgm.results import History


def test_image_grid_shows_every_image_of_every_row(tmp_path):
    rows = [torch.zeros(5, 4), torch.full((5, 4), 3.0)]
    image_grid(rows, (2, 2), tmp_path / "grid.png", "title")
    pixels = imread(tmp_path / "grid.png")[..., :3].mean(-1)
    black, frame = (pixels < 0.05).mean(), ((pixels > 0.7) & (pixels < 0.95)).mean()
    # ten 2×2 images, each in a frame of 12 cells: 5 · 4 black cells beside 10 · 12 grey ones
    assert abs(black / frame - 20 / 120) < 0.02


def test_learning_curve_is_drawn_from_the_history(tmp_path):
    rows = [{"epoch": i, "train_nelbo": 100.0 / i, "val_nelbo": 101.0 / i} for i in range(1, 30)]
    learning_curve(History(rows), tmp_path / "curve.png")
    assert np.ptp(imread(tmp_path / "curve.png")) > 0.5


def test_figures_leave_pyplot_alone():
    code = "import sys, pyro_dgm.experiments.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_the_table_of_a_density_says_that_it_has_no_bits_per_dim():
    """Pixels on levels under a density: the run is scored in nats, and fails nowhere."""
    model = dgm.LatentVariableModel(dgm.StandardNormal(1), dgm.Normal(dgm.mlp(1, 4)))
    guide = dgm.AmortizedGuide(dgm.Conditional(dist.Normal, dgm.mlp(4, 2)))
    x = torch.randint(17, (40, 4)).to(torch.get_default_dtype())
    figures = results_of(dgm.nll(model, guide, x, num=30), 4)
    assert figures["nll_measure"] == "density on levels"
    assert "bits_per_dim" not in figures
    about = {"num_draws": 30, "num_test": 40, "parameters": 9, "evaluation_seconds": 0.1}
    text = table({**figures, **about})
    assert "nats (density on levels, upper bound in expectation)" in text
    assert "none: of a density on levels" in text
