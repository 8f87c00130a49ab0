"""A fit refuses what is no critic, no game and no batch, and shows its settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyro_dgm as dgm

over = pytest.mark.parametrize
FITS = {"adam": dgm.gan.AdamFit(epochs=1), "lbfgs": dgm.gan.LBFGSFit(1)}
KL = dgm.gan.KL


def critic():
    return nn.Linear(2, 1)


def batch():
    return (torch.randn(10, 2),)


@over("fit", FITS.values(), ids=FITS)
@over(
    ("game", "message"),
    [
        (KL(), r"a game, got KL\(\). Fix: FDivergence\(KL\(\)\)"),
        (KL, r"a game, got the class KL. Fix: FDivergence\(KL\(\)\)"),
        (dgm.gan.Hinge, r"a game, got the class Hinge. Fix: Hinge\(\)"),
        ("hinge", r"a game, got 'hinge'. Fix: NonSaturating\(\)"),
    ],
    ids=["divergence", "class of divergences", "class", "name"],
)
def test_what_is_no_game_is_refused(fit, game, message):
    with pytest.raises(TypeError, match=f"{type(fit).__name__}: expected {message}"):
        fit(critic(), game, batch(), batch())


@over("fit", FITS.values(), ids=FITS)
def test_a_class_or_a_function_in_place_of_a_critic_is_refused(fit):
    fix = r"Fix: fit\(critic, game, \(x,\), \(fakes,\)\)"
    with pytest.raises(TypeError, match=f"a critic, got the class Linear. {fix}"):
        fit(nn.Linear, dgm.NonSaturating(), batch(), batch())
    with pytest.raises(TypeError, match=f"a critic, got function. {fix}"):
        fit(critic, dgm.NonSaturating(), batch(), batch())


@over("fit", FITS.values(), ids=FITS)
def test_a_tensor_in_place_of_a_tuple_is_refused(fit):
    (x,) = batch()
    with pytest.raises(TypeError, match=r"real data as a tuple \(x, \*context\), got Tensor. Fix:"):
        fit(critic(), dgm.NonSaturating(), x, batch())
    with pytest.raises(TypeError, match=r"fakes as a tuple \(y, \*context\), got Tensor. Fix: fit"):
        fit(critic(), dgm.NonSaturating(), batch(), x)


@over("fit", FITS.values(), ids=FITS)
def test_a_fit_moves_the_critic_and_leaves_no_gradient_in_the_data(fit):
    module, real, fake = critic(), batch(), batch()
    before = module.weight.detach().clone()
    fit(module, dgm.NonSaturating(), real, fake)
    assert not torch.equal(module.weight, before)
    assert real[0].grad is None


def test_fits_show_their_settings():
    assert repr(dgm.gan.AdamFit(5)) == "AdamFit(epochs=5, lr=0.002, batch_size=256)"
    assert repr(dgm.gan.LBFGSFit()) == "LBFGSFit(iterations=200)"


@over(
    "options",
    [{"epochs": -1}, {"lr": -0.1}, {"lr": 0}, {"lr": float("nan")}, {"batch_size": 0}],
    ids=str,
)
def test_settings_that_fit_nothing_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(
        ValueError, match=rf"AdamFit: expected {name} >=? .*, got {value}. Fix: AdamFit\("
    ):
        dgm.gan.AdamFit(**options)
