"""A renamed keyword is still answered, under a warning that names the new one."""

from __future__ import annotations

import inspect

import pytest
import torch

import pyro_dgm as dgm
from pyro_dgm.deprecation import renamed_argument

MASK = dgm.flows.checkerboard_mask((1, 4, 4))
LAYERS = {
    "Coupling": lambda **options: dgm.flows.Coupling(4, **options),
    "Autoregressive": lambda **options: dgm.flows.Autoregressive(4, **options),
    "ImageCoupling": lambda **options: dgm.flows.ImageCoupling(MASK, **options),
}
STACKS = {
    "coupling": lambda **options: dgm.flows.coupling(4, 1, **options),
    "iaf": lambda **options: dgm.iaf(4, 1, **options),
    "maf": lambda **options: dgm.maf(4, 1, **options),
    "image_realnvp": lambda **options: dgm.image_realnvp((1, 4, 4), 1, **options),
    "multiscale_realnvp": lambda **options: dgm.multiscale_realnvp((1, 4, 4), (4, 4), **options),
}
MAKERS = {**LAYERS, **STACKS}


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_flow_still_answers_law_and_warns_of_transformer(name):
    additive = dgm.flows.Additive()
    with pytest.warns(DeprecationWarning, match=rf"{name}: law= is now transformer=\. Fix: {name}"):
        old = MAKERS[name](law=additive)
    new = MAKERS[name](transformer=additive)
    assert repr(old) == repr(new)


@pytest.mark.parametrize("name", list(LAYERS))
def test_the_signature_shows_the_new_name_alone(name):
    names = inspect.signature(getattr(dgm.flows, name)).parameters
    assert "transformer" in names
    assert "law" not in names


def test_both_names_at_once_are_refused():
    affine = dgm.flows.Affine()
    with pytest.raises(
        TypeError, match=r"iaf: expected transformer= alone, got law= as well\. Fix: iaf\("
    ):
        dgm.iaf(2, 1, law=affine, transformer=affine)


def test_the_warning_points_at_the_line_of_the_caller():
    with pytest.warns(DeprecationWarning, match="Coupling") as caught:
        dgm.flows.Coupling(4, law=dgm.flows.Affine())
    assert caught[0].filename == __file__


def test_a_call_by_the_new_name_is_silent_and_returns_what_the_function_returns():
    @renamed_argument(old="new")
    def double(new):
        return 2 * new

    assert double(3) == double(new=3) == 6
    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
