"""Monotone maps of single numbers: each number has its value and its own slope."""

from __future__ import annotations

import pytest
import torch
from conftest import in_float64

import pyro_dgm as dgm

LAWS = {
    "additive": dgm.Additive,
    "affine": dgm.Affine,
    "spline": lambda: dgm.Spline(5, 3.0),
}
laws = pytest.mark.parametrize("build", list(LAWS.values()), ids=list(LAWS))
both_ways = pytest.mark.parametrize("direction", ["forward", "inverse"])


def given(law, *batch: int, dim: int = 4, scale: float = 1.5):
    return 2 * torch.randn(*batch, dim), scale * torch.randn(*batch, law.num_params, dim)


@laws
@both_ways
@pytest.mark.parametrize("batch", [(), (5,), (2, 3, 5)], ids=str)
def test_value_and_log_slope_come_number_by_number(build, direction, batch):
    law = build()
    y, log_slope = getattr(law, direction)(*given(law, *batch))
    assert (y.shape, log_slope.shape) == ((*batch, 4), (*batch, 4))


@laws
@both_ways
@in_float64
def test_the_log_slope_of_each_number_is_that_of_autograd(build, direction):
    law = build()
    f, (x, raw) = getattr(law, direction), given(law, 50)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x, r: f(x, r)[0]))(x, raw)
    slopes = jacobian.diagonal(dim1=-2, dim2=-1)
    assert torch.equal(jacobian, torch.diag_embed(slopes)), "a number depends on another one"
    torch.testing.assert_close(f(x, raw)[1], slopes.log(), rtol=1e-10, atol=1e-10)


@laws
@in_float64
def test_the_inverse_undoes_the_map_and_its_slope(build):
    law = build()
    x, raw = given(law, 200)
    y, log_slope = law.forward(x, raw)
    back, back_log_slope = law.inverse(y, raw)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back_log_slope, -log_slope, rtol=1e-9, atol=1e-9)


@laws
@both_ways
@in_float64
def test_the_gradients_of_a_law_are_those_of_finite_differences(build, direction):
    law = build()
    x, raw = (t.requires_grad_() for t in given(law, 3, dim=2))
    assert torch.autograd.gradcheck(getattr(law, direction), (x, raw))
