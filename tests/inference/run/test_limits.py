"""What no likelihood can be, and how sure a refusal is."""

import pytest
import torch

from pyro_dgm.inference.run.limits import check_divergence, check_masses, check_total
from pyro_dgm.inference.sites.measures import Measure

NO_ROUNDING = torch.zeros(3)


def test_masses_beyond_one_raise_with_the_datum():
    check_masses(torch.tensor([-3.0, 0.0, 1e-3]), NO_ROUNDING)
    check_masses(torch.tensor([-3.0, 0.2, 0.0]), torch.full((3,), 0.2))
    check_masses(torch.full((3,), -torch.inf), NO_ROUNDING)  # there is no discrete site
    with pytest.raises(
        ValueError, match=r"at most 1, got log P\(x\|z\) = 0.2 nats at datum 1\. Fix"
    ):
        check_masses(torch.tensor([-3.0, 0.2, 0.0]), NO_ROUNDING)


def test_a_negative_total_of_masses_raises_and_one_of_densities_does_not():
    check_total(Measure.DENSITY, torch.full((10,), -9.0))
    with pytest.raises(
        ValueError, match=r"expected -log P\(x\) >= 0 of discrete data, got -9 nats"
    ):
        check_total(Measure.MASS, torch.full((10,), -9.0))


def test_unbiased_estimates_of_masses_near_one_are_not_refused_however_noisy():
    """Weights w of mean 0.99, with an infinite variance: each estimate may exceed 1, their product hardly."""
    pareto = torch.distributions.Pareto(1.0, 1.5).sample((200, 300, 4))
    cost = -(0.99 * pareto / 3).mean(-1).log()
    assert (cost < 0).double().mean() > 0.05
    for set_of_data in cost:
        check_total(Measure.MASS, set_of_data)


def test_the_noise_of_a_kl_is_not_refused_but_a_density_that_does_not_integrate_to_one_is():
    """log q - log p of N(0, 1) and N(0.01, 1): KL 5e-5, and most estimates from 8 draws are far off."""
    z = torch.randn(200, 8, 50)
    log_ratio = (z - 0.01).square() / 2 - z.square() / 2
    assert (log_ratio.mean((1, 2)) < 0).double().mean() > 0.3
    for terms in log_ratio:
        check_divergence("nll", terms.mean(0), 8)
    with pytest.raises(
        ValueError, match=r"nll: expected KL\(q \|\| p\) >= 0, got -0\.0\d+ nats.*Fix"
    ):
        check_divergence("nll", log_ratio[0].mean(0) - 0.1, 8)
