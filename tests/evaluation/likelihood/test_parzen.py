"""The kernel density estimate equals an exact mixture of normals, and misleads as its documentation says."""

import pyro.distributions as dist
import pytest
import torch
from conftest import both_dtypes

import pyro_dgm as dgm


def mixture(samples, bandwidth):
    """The same density by torch's own laws."""
    weights = dist.Categorical(logits=torch.zeros(len(samples), dtype=torch.float64))
    kernels = dist.Normal(samples.double().flatten(1), bandwidth).to_event(1)
    return dist.MixtureSameFamily(weights, kernels)


@both_dtypes
@pytest.mark.parametrize("bandwidth", [0.01, 0.7, 20.0])
@pytest.mark.parametrize("chunk", [1_000_000, 100, 1])
def test_it_is_the_density_of_the_mixture_of_kernels(bandwidth, chunk):
    samples, x = torch.randn(30, 2, 3), torch.randn(7, 2, 3)
    found = dgm.diagnostics.parzen(samples, x, bandwidth, chunk)
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found, mixture(samples, bandwidth).log_prob(x.flatten(1).double()), rtol=1e-12, atol=0
    )


def test_far_from_the_origin_no_digit_cancels():
    """Data a million bandwidths from 0, as levels of an image with a narrow kernel are."""
    samples, x = (
        1e6 + torch.randn(20, 4, dtype=torch.float64),
        1e6 + torch.randn(5, 4, dtype=torch.float64),
    )
    moved = dgm.diagnostics.parzen(samples - 1e6, x - 1e6, 0.5)
    torch.testing.assert_close(dgm.diagnostics.parzen(samples, x, 0.5), moved, rtol=1e-7, atol=1e-7)


def test_a_sample_of_one_dim_recovers_its_density():
    """Silverman's rule at 20,000 draws: the bias of the curvature and five standard errors of each estimate."""
    samples, x = torch.randn(20_000, 1), torch.tensor([[-1.0], [0.0], [1.5]])
    h = 1.06 * len(samples) ** -0.2
    density = dist.Normal(0.0, 1.0).log_prob(x[:, 0]).exp()
    bias = 0.5 * h**2 * (x[:, 0].square() - 1).abs() * density
    stderr = (density / (2 * torch.pi**0.5 * h * len(samples))).sqrt()
    assert bool(
        ((dgm.diagnostics.parzen(samples, x, h).exp() - density).abs() < bias + 5 * stderr).all()
    )


def test_the_bandwidth_is_the_best_of_the_candidates():
    samples, x = torch.randn(50, 2), torch.randn(40, 2)
    scores = {h: dgm.diagnostics.parzen(samples, x, h).mean().item() for h in (0.05, 0.4, 5.0)}
    assert (
        dgm.diagnostics.parzen_bandwidth(samples, x, [*scores])
        == max(scores, key=scores.get)
        == 0.4
    )


def test_a_model_that_repeats_one_constant_wins_against_the_true_one():
    """The entropy of N(0, I) in 50 dims is what the constant reaches, and the true model misses by many nats."""
    x, val = torch.randn(500, 50, dtype=torch.float64), torch.randn(500, 50)
    true, constant = torch.randn(2000, 50), torch.zeros(2000, 50)
    score = {
        n: dgm.diagnostics.parzen(y, x, dgm.diagnostics.parzen_bandwidth(y, val)).mean()
        for n, y in [("true", true), ("one", constant)]
    }
    exact = dist.Normal(torch.zeros(50, dtype=torch.float64), 1.0).to_event(1).log_prob(x).mean()
    assert score["one"] == pytest.approx(exact.item(), abs=1e-9)
    assert score["true"] < exact - 5


def test_bad_arguments_raise():
    x = torch.zeros(3, 2)
    for bandwidth in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="parzen: expected a bandwidth above 0, got"):
            dgm.diagnostics.parzen(x, x, bandwidth)
    for samples in (torch.zeros(0, 2), torch.zeros(4, 3)):
        with pytest.raises(
            ValueError,
            match=r"parzen: expected samples \(S, \*event\) of the data's event shape \(2,\)",
        ):
            dgm.diagnostics.parzen(samples, x, 1.0)
    with pytest.raises(ValueError, match="chunk: expected at least 1, got 0"):
        dgm.diagnostics.parzen(x, x, 1.0, chunk=0)
