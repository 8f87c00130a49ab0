"""Curves of all seeds: the band, the best epochs, and a scale that the first epochs do not set."""

import numpy as np
import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.experiments.plots.seeds import seed_curves
from pyro_dgm.results import History
from pyro_dgm.training import SeedHistory


def rows(offset, num=20):
    return [
        {"epoch": i, "train_nelbo": 100 / i + offset, "val_nelbo": 100 / i + 2 * offset}
        for i in range(1, num + 1)
    ]


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_band_is_mean_and_standard_deviation_between_seeds():
    curves = seed_curves(SeedHistory([5, 6, 7], [rows(0.0), rows(1.0), rows(5.0)]), "train_nelbo")
    low, high = curves.band
    assert curves.seeds == (5, 6, 7)
    assert np.allclose(curves.mean, 100 / np.arange(1, 21) + 2)
    assert np.allclose((high - low) / 2, np.std([0.0, 1.0, 5.0], ddof=1))


def test_a_seed_that_ends_early_leaves_the_mean_to_the_others_and_no_band_to_one():
    history = SeedHistory([0, 1], [rows(0.0, 3), rows(2.0, 5)])
    curves = seed_curves(history, "val_nelbo")
    assert np.allclose(curves.mean[3:], 100 / np.arange(4, 6) + 4)
    assert np.isnan(curves.band[0]).tolist() == [False, False, False, True, True]
    assert curves.best == [(3.0, pytest.approx(100 / 3)), (5.0, 24.0)]
    assert curves.last.tolist() == pytest.approx([100 / 3, 24.0])


def test_the_learning_curve_shows_every_seed_the_means_and_a_dot_at_every_best_epoch():
    history = SeedHistory([0, 1, 2], [rows(0.0), rows(1.0), rows(2.0)])
    ax = dgm.plots.learning_curve(history)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert labels_of(ax) == ["train", "validation"]
    assert len(ax.lines) == 2 * (3 + 1) + 3
    assert [line.get_xydata()[0].tolist() for line in dots] == [[20, 5], [20, 7], [20, 9]]
    assert "nats per datum" in ax.get_ylabel()
    assert "3 seeds" in ax.get_title(loc="left")


def test_the_first_epochs_do_not_set_the_scale():
    ax = dgm.plots.learning_curve(History(rows(0.0, 40)))
    low, high = ax.get_ylim()
    assert low < 2.5
    assert 20 <= high < 25  # the first four epochs are out of the picture, the fifth is not
    assert ax.get_xlabel() == "epoch (4 above the scale)"
    assert ax.get_title(loc="left").endswith("dot: best epoch")


def test_infinite_and_missing_epochs_are_gaps():
    history = History([{"epoch": 1, "train_nelbo": float("inf")}, *rows(0.0, 4)[1:]])
    assert seed_curves(history, "train_nelbo").epochs.tolist() == [2, 3, 4]
    assert seed_curves(history, "train_kl[z]") is None
    dgm.plots.learning_curve(history)


def test_a_single_epoch_is_a_visible_point():
    ax = dgm.plots.learning_curve(History(rows(0.0, 1)))
    assert ax.lines[0].get_marker() == "."


def test_axes_that_are_given_are_drawn_on():
    ax = dgm.plots.learning_curve(History(rows(0.0)))
    assert dgm.plots.learning_curve(History(rows(1.0)), ax=ax) is ax


def test_a_game_has_the_curves_of_its_terms():
    generator = dgm.LatentVariableModel(dgm.StandardNormal(2), dgm.Normal(dgm.mlp(2, 9)))
    history = dgm.GANTrainer(generator, dgm.mlp(9, 1)).fit(
        torch.randn(32, 9), epochs=3, progress=False
    )
    ax = dgm.plots.critic(history)
    assert labels_of(ax) == ["critic", "generator", "r1"]
    assert ax.lines[0].get_ydata().tolist() == history.column("train_critic")
    with pytest.raises(ValueError, match=r"got \['epoch', 'train_critic'.*dgm.plots.critic"):
        dgm.plots.learning_curve(history)


def test_the_terms_of_a_bound_are_none_of_the_game():
    row = {"epoch": 1, "train_critic": 1.0, "train_generator": 2.0, "train_nelbo": 3.0}
    ax = dgm.plots.critic(History([row, {**row, "epoch": 2, "train_kl[z]": 1.0}]))
    assert labels_of(ax) == ["critic", "generator"]
    with pytest.raises(ValueError, match=r"GANTrainer.*dgm.plots.learning_curve"):
        dgm.plots.critic(History(rows(0.0)))
