"""The range of levels against 60 digits, at both ends and far outside of what floats resolve."""

from __future__ import annotations

import mpmath
import pytest
import torch
from conftest import both_dtypes

import pyro_dgm as dgm


def exact_inverse(y: float, levels: int, alpha: float) -> tuple[float, float]:
    with mpmath.workdps(60):
        share = mpmath.mpf(alpha) + (1 - 2 * mpmath.mpf(alpha)) * mpmath.mpf(y) / levels
        slope = mpmath.mpf(levels) / (1 - 2 * mpmath.mpf(alpha)) * share * (1 - share)
        return float(mpmath.log(share / (1 - share))), float(-mpmath.log(slope))


def exact_forward(x: float, levels: int, alpha: float) -> tuple[float, float]:
    with mpmath.workdps(60):
        sigma = 1 / (1 + mpmath.exp(-mpmath.mpf(x)))
        other = 1 / (1 + mpmath.exp(mpmath.mpf(x)))
        unit = mpmath.mpf(levels) / (1 - 2 * mpmath.mpf(alpha))
        return float(unit * (sigma - mpmath.mpf(alpha))), float(mpmath.log(unit * sigma * other))


def exactly(function, values: torch.Tensor, *args) -> torch.Tensor:
    return torch.tensor([function(v, *args) for v in values.flatten().tolist()])


@both_dtypes
@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize("alpha", [1e-5, 0.05])
def test_both_ends_of_the_range_are_finite_and_exact(levels, alpha, dtype):
    """Zero itself, the largest float below L, and what lies between."""
    top = torch.nextafter(torch.tensor(float(levels)), torch.tensor(0.0)).item()
    y = torch.tensor([[0.0], [1e-6], [0.3], [1.0], [levels - 0.7], [levels * (1 - 1e-6)], [top]])
    x, log_det = dgm.Levels(levels, alpha).inverse(y)
    expected = exactly(exact_inverse, y, levels, alpha)
    tolerance = {torch.float64: 1e-12, torch.float32: 3e-6}[dtype]
    torch.testing.assert_close(
        torch.stack([x[:, 0], log_det], -1), expected, rtol=tolerance, atol=tolerance
    )


@both_dtypes
@pytest.mark.parametrize(("levels", "alpha"), [(1, 0.0), (17, 0.0), (256, 1e-5)])
def test_the_log_det_is_exact_for_numbers_of_any_size(levels, alpha, dtype):
    x = torch.tensor([-1e4, -300.0, -30.0, -2.0, 0.0, 0.1, 9.0, 40.0, 1e4])[:, None]
    y, log_det = dgm.Levels(levels, alpha)(x)
    expected = exactly(exact_forward, x, levels, alpha)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(log_det, expected[:, 1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(y[:, 0], expected[:, 0], rtol=tolerance, atol=levels * tolerance)


@both_dtypes
def test_the_unit_cell_is_open_on_both_sides_in_floats(dtype):
    """So that level + u never reaches the next level, and every u has a finite x, its ends included."""
    cell = dgm.Levels(1, alpha=0.0)
    u, _ = cell(torch.tensor([-1e4, 1e4]))
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    x, log_det = cell.inverse(torch.tensor([[0.0], [1.0], [u[0]], [u[1]]]))
    assert bool(x.isfinite().all())
    assert bool(log_det.isfinite().all())
    assert float(x[0]) < -30
    assert float(x[1]) > 15


@both_dtypes
def test_gradients_are_finite_at_numbers_of_any_size(dtype):
    x = torch.tensor([[-1e4, -20.0, 0.0, 20.0, 1e4]], requires_grad=True)
    y, log_det = dgm.Levels(1, alpha=0.0)(x)
    (y.sum() + log_det.sum()).backward()
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("event_dim", [1, 2, 3])
def test_the_log_det_is_summed_over_the_event(event_dim):
    layer, x = dgm.Levels(5, event_dim=event_dim), torch.randn(2, 3, 4, 5)
    assert layer(x)[1].shape == layer.inverse(layer(x)[0])[1].shape == x.shape[:-event_dim]
    torch.testing.assert_close(layer(x)[1].sum(), dgm.Levels(5)(x.flatten())[1])
    assert layer.domain.event_dim == layer.codomain.event_dim == event_dim


def test_the_codomain_holds_all_values_and_no_others():
    layer = dgm.Levels(10, alpha=0.05)
    y, _ = layer(torch.tensor([[-1e3], [1e3]]))
    assert bool(layer.codomain.check(y).all())
    margin = 0.5 / 0.9
    torch.testing.assert_close(y[:, 0], torch.tensor([-margin, 10 + margin]))
    assert not bool(layer.codomain.check(torch.tensor([10.6])))


@pytest.mark.parametrize(
    "options", [{"levels": 0}, {"levels": 2, "alpha": 0.5}, {"levels": 2, "alpha": -0.1}]
)
def test_a_range_without_inside_is_refused(options):
    with pytest.raises(
        ValueError, match="Levels: expected levels >= 1, 0 <= alpha < 0.5 and event_dim >= 1, got"
    ):
        dgm.Levels(**options)


def test_an_event_without_dims_is_refused():
    with pytest.raises(ValueError, match="event_dim=0"):
        dgm.Levels(2, event_dim=0)
