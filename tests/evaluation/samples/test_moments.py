"""The Fréchet distance against closed forms, the root of a matrix, and its own bias."""

import pytest
import torch
from conftest import in_float64
from scipy.linalg import sqrtm

import pyro_dgm as dgm


def with_moments(num, mean, factor):
    """A sample whose mean and covariance F Fᵀ are exact."""
    x = torch.randn(num, len(mean))
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(x.T @ x / (num - 1)), x.T, upper=False
    ).T
    return mean + white @ factor.T


@in_float64
def test_it_is_the_closed_form_of_two_normals():
    a, b, mean = torch.randn(4, 4), torch.randn(4, 4), torch.randn(4)
    real, fake = with_moments(50, torch.zeros(4), a), with_moments(40, mean, b)
    s, t = a @ a.T, b @ b.T
    root = torch.as_tensor(sqrtm((s @ t).numpy()).real)
    exact = mean.square().sum() + torch.trace(s + t - 2 * root)
    assert dgm.frechet(real=real, fake=fake).value == pytest.approx(exact.item(), rel=1e-9)


@in_float64
def test_in_one_dimension_it_is_the_sum_of_squared_differences():
    real, fake = (
        with_moments(30, torch.tensor([1.0]), torch.eye(1)),
        with_moments(30, torch.zeros(1), 3 * torch.eye(1)),
    )
    assert dgm.frechet(real=real, fake=fake).value == pytest.approx(1 + 4, rel=1e-12)


@in_float64
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_sample_is_at_distance_zero_from_itself_in_any_unit_and_with_more_features_than_data(
    scale,
):
    x = scale * torch.randn(10, 30)
    assert 0 <= dgm.frechet(real=x, fake=x).value < 1e-12 * scale**2 * 30


def test_it_is_biased_upward_and_knows_by_about_how_much():
    """100 pairs from one law, where the value is bias and nothing else."""
    found = [
        dgm.frechet(real=torch.randn(100, 5), fake=torch.randn(100, 5), num_resamples=5)
        for _ in range(100)
    ]
    value, bias = (torch.tensor([getattr(f, name) for f in found]) for name in ("value", "bias"))
    assert value.min() > 0
    assert bias.mean() / value.mean() == pytest.approx(1.0, abs=0.25)


def test_the_standard_error_is_the_spread_over_samples():
    """100 pairs of samples: the spread is known to 7 %."""
    found = [
        dgm.frechet(real=torch.randn(100, 4), fake=torch.randn(80, 4) + 0.7) for _ in range(100)
    ]
    spread = torch.tensor([f.value for f in found]).std().item()
    claimed = torch.tensor([f.stderr for f in found]).square().mean().sqrt().item()
    assert 0.7 < claimed / spread < 1.4
