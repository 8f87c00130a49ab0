"""Images are on one scale, in grey and colour; other data are points or heat maps; nothing needs a display."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.image import imread

import pyro_dgm as dgm
from pyro_dgm.experiments.plots.canvas import save_picture
from pyro_dgm.experiments.plots.tiles import FRAME_SHADE, limits_of, tile, to_pixels
from pyro_dgm.results import GivenNLL


def picture_of(ax):
    return np.asarray(ax.images[0].get_array())


def test_a_grid_shows_every_image_in_a_frame():
    x = torch.cat([torch.zeros(5, 4), torch.full((5, 4), 3.0)])
    picture = picture_of(dgm.plots.samples(x, (2, 2)))
    assert (picture == 0).sum() == (5 * 4)
    # ten 2×2 images, each in a frame of 12 cells, fill two rows of five
    assert (picture == FRAME_SHADE).sum() == 10 * 12
    assert (picture == 1).sum() == 5 * 4


def test_the_picture_in_the_file_has_the_shades_of_the_grid(tmp_path):
    x = torch.cat([torch.zeros(8, 4), torch.full((8, 4), 3.0)])
    save_picture(dgm.plots.samples(x, (2, 2)), tmp_path / "grid.png")
    pixels = imread(tmp_path / "grid.png")[..., :3].mean(-1)
    black, frame = (pixels < 0.05).mean(), ((pixels > 0.5) & (pixels < 0.6)).mean()
    assert abs(black / frame - (8 * 4) / (16 * 12)) < 0.02


def test_images_stand_row_by_row():
    pixels = np.arange(3.0).reshape(3, 1, 1) / 4
    picture = tile(pixels, 2)
    assert picture.shape == (6, 6)
    assert [picture[1, 1], picture[1, 4], picture[4, 1]] == [0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("numbers", "levels", "limits"),
    [
        ([0.2, 0.4], None, (0, 1)),
        ([0.0, 3.0], None, (0, 3)),
        ([0.0, 3.0], 17, (0, 16)),
        ([-2.0, 0.5], None, (-2, 0.5)),
        ([float("nan"), 0.5], None, (0, 1)),
    ],
)
def test_black_and_white_are_the_ends_of_the_scale(numbers, levels, limits):
    assert limits_of(torch.tensor(numbers), levels) == limits


def test_colour_images_keep_their_channels():
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    picture = picture_of(dgm.plots.samples(red, (3, 2, 2)))
    assert picture[1, 1].tolist() == [1, 0, 0]


def test_missing_pixels_have_the_shade_of_the_frame():
    x = torch.tensor([[0.0, torch.nan, 1.0, 1.0]])
    assert to_pixels(x, (2, 2))[0, 0, 1] == FRAME_SHADE


def test_reconstructions_stand_below_their_data_on_one_scale():
    x = torch.ones(12, 4)
    picture = picture_of(dgm.plots.reconstructions(x, x / 2, (2, 2)))
    assert picture.shape == (16, 40)
    assert [picture[1, 1], picture[5, 1], picture[9, 1], picture[13, 1]] == [1, 0.5, 1, 0.5]
    assert picture[9, 2 * 4 + 1] == FRAME_SHADE  # there are 12 data, of which two in the second row


def test_a_traversal_has_a_row_for_each_dim():
    model = dgm.LatentVariableModel(dgm.StandardNormal(3), dgm.Normal(torch.nn.Linear(3, 36)))
    images = dgm.traverse(model, torch.zeros(1, 3), steps=5)
    ax = dgm.plots.traversal(images, (6, 6))
    assert picture_of(ax).shape == (3 * 8, 5 * 8)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1", "2"]


def test_the_worst_data_come_first_with_their_nats_and_rows():
    nll = GivenNLL(torch.tensor([5.0, 90.0, 7.0, torch.nan]))
    x = torch.arange(4.0)[:, None].expand(4, 36) / 4
    ax = dgm.plots.worst(nll, x, (6, 6), num=3)
    assert [text.get_text() for text in ax.texts] == ["nan #3", "90 #1", "7 #2"]
    assert "nats" in ax.get_title(loc="left")
    with pytest.raises(ValueError, match="expected the 4 data that the nll is of, got 3"):
        dgm.plots.worst(nll, x[:3], (6, 6))


@pytest.mark.parametrize("dim", [1, 2, 12])
def test_data_that_are_no_images_are_shown_as_well(dim):
    x = torch.randn(30, dim)
    nll = GivenNLL(torch.rand(30))
    assert dgm.plots.samples(x, (dim,)).get_title(loc="left") == "30 draws"
    assert dgm.plots.reconstructions(x, x, (dim,)).get_title(loc="left") == "data, E[x | z]"
    dgm.plots.worst(nll, x, (dim,))
    dgm.plots.traversal(torch.randn(4, 7, 1, dim), (dim,))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda x: dgm.plots.samples(x, (3, 3)), r"x: expected data \(N, 9\).*got \(5, 4\)"),
        (lambda x: dgm.plots.samples(x, (2, 2, 1)), "expected 1 or 3 channels, got 2"),
        (lambda x: dgm.plots.reconstructions(x, x[:2], (2, 2)), "one for each of the 5 data"),
        (lambda x: dgm.plots.traversal(x, (2, 2)), r"\(dims, steps, S, \*event\).*dgm.traverse"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(torch.rand(5, 4))


@pytest.mark.slow
def test_pictures_leave_pyplot_alone():
    code = (
        "import sys, torch, pyro_dgm as dgm; dgm.plots.samples(torch.rand(4, 4), (2, 2));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


# -- data that are no images ---------------------------------------------------------------------------
def test_whole_numbers_have_a_bar_each_with_their_share():
    ax = dgm.plots.samples(torch.tensor([0.0, 0, 1, 3]), (1,), columns=["visits"])
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in ax.patches}
    assert bars == {0: 0.5, 1: 0.25, 2: 0, 3: 0.25}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("visits", "share")


def test_columns_stand_below_their_numbers():
    names = ["age", "income", "visits"]
    x = torch.tensor([[20.0, 3e4, 0], [80, 6e4, 9], [50, 6e4, 9]])
    ax = dgm.plots.samples(x, (3,), columns=names)
    ends = [text.get_text() for text in ax.get_xticklabels()]
    assert ends == ["age\n20 to 80", "income\n3e+04 to 6e+04", "visits\n0 to 9"]
    assert picture_of(ax).tolist() == [[0, 0, 0], [1, 1, 1], [0.5, 1, 1]]
    ax = dgm.plots.samples(torch.randn(10, 2), (2,), columns=names[:2])
    assert [ax.get_xlabel(), ax.get_ylabel()] == names[:2]


def test_a_heat_map_says_how_many_of_the_rows_it_shows():
    ax = dgm.plots.samples(torch.randn(200, 3), (3,))
    assert picture_of(ax).shape == (64, 3)
    assert ax.get_title(loc="left") == "200 draws; the first 64 shown"
