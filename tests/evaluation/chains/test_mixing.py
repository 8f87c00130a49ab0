"""R-hat and ESS against ArviZ, and against laws whose autocorrelation is known."""

import arviz
import numpy as np
import pytest
import torch
from conftest import in_float64

import pyro_dgm as dgm


def autoregressive(rho, chains=4, num=200, rest=()):
    """Chains of $x_t = \\rho x_{t-1} + \\sqrt{1 - \\rho^2} \\epsilon_t$, from their stationary law."""
    noise = torch.randn(chains, num, *rest)
    x = [noise[:, 0]]
    for t in range(1, num):
        x.append(rho * x[-1] + (1 - rho**2) ** 0.5 * noise[:, t])
    return torch.stack(x, 1)


CHAINS = {
    "independent": lambda: torch.randn(4, 100),
    "sticky": lambda: autoregressive(0.95),
    "antithetic": lambda: autoregressive(-0.6),
    "odd": lambda: autoregressive(0.5, num=101),
    "short": lambda: torch.randn(2, 5),
    "four": lambda: torch.randn(3, 4),
    "one": lambda: autoregressive(0.7, chains=1),
    "shifted": lambda: torch.randn(4, 60) + torch.arange(4.0)[:, None],
    "scaled": lambda: torch.randn(4, 60) * torch.tensor([1.0, 1.0, 1.0, 6.0])[:, None],
    "heavy": lambda: torch.randn(4, 300) / torch.rand(4, 300),
    "tied": lambda: autoregressive(0.9).mul(2).round(),
    "trend": lambda: torch.randn(2, 50) + torch.linspace(0, 9, 50),
}


@in_float64
@pytest.mark.parametrize("build", CHAINS.values(), ids=CHAINS)
def test_they_are_those_of_arviz(build):
    draws = build()
    numbers = draws.numpy()
    np.testing.assert_allclose(dgm.diagnostics.ess(draws), arviz.ess(numbers), rtol=1e-9)
    np.testing.assert_allclose(
        dgm.diagnostics.mean_ess(draws), arviz.ess(numbers, method="mean"), rtol=1e-9
    )
    if len(draws) > 1:  # ArviZ gives no R-hat of one chain, though split in two it has one
        np.testing.assert_allclose(dgm.diagnostics.rhat(draws), arviz.rhat(numbers), rtol=1e-9)


@in_float64
def test_they_are_those_of_arviz_in_many_random_chains():
    """Where the sum over lags ends differs from chain to chain."""
    draws = torch.stack([autoregressive(rho, 3, 40) for rho in torch.linspace(-0.9, 0.98, 100)], -1)
    expected = [arviz.ess(draws[..., i].numpy()) for i in range(100)]
    np.testing.assert_allclose(dgm.diagnostics.ess(draws), expected, rtol=1e-9)


def test_every_quantity_has_its_own():
    draws = torch.randn(4, 50, 3, 2)
    draws[0, :, 1, 0] += 3
    for measure in (dgm.diagnostics.rhat, dgm.diagnostics.ess, dgm.diagnostics.mean_ess):
        found = measure(draws)
        assert found.shape == (3, 2)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found[1, 0], measure(draws[:, :, 1, 0]))
    assert dgm.diagnostics.rhat(draws).argmax() == 2


def test_chains_at_different_places_and_of_different_scales_have_a_large_rhat():
    assert dgm.diagnostics.rhat(CHAINS["independent"]()) < 1.05
    assert dgm.diagnostics.rhat(CHAINS["shifted"]()) > 1.3
    assert dgm.diagnostics.rhat(CHAINS["scaled"]()) > 1.1


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_the_mean_ess_of_an_autoregressive_law_is_known(rho):
    """S (1 − ρ) / (1 + ρ), within 5 standard errors over 60 repetitions."""
    found = dgm.diagnostics.mean_ess(autoregressive(rho, 4, 2000, (60,))) / 8000
    expected = (1 - rho) / (1 + rho)
    assert (
        found.mean() - expected
    ).abs() < 5 * found.std() / 60**0.5 + 0.03 * expected  # bias of the cut-off


def test_too_few_draws_raise():
    with pytest.raises(
        ValueError, match=r"at least 4 draws, got shape \(4, 3\). Fix: hmc\(model, x, num=4\)"
    ):
        dgm.diagnostics.rhat(torch.randn(4, 3))
